-- How much of a stochastic method's scores is chance: one row per check and method; means over
-- instances of what `reliability_by_instance` has (`attribeam check`).
--
-- Higher is stabler. Other seeds draw other samples (`lime`, `kernel_shap`), other noise (`iba`) or
-- other scores (`random`, which is the reference: 0 and less). What fools it: a method that gives
-- one token all is reliable at once, and more samples buy reliability, so that a method is to be
-- read with its cost. It says nothing of other training seeds of the model: compare runs of these.
--
-- Metrics:
--   spearman     higher is stabler; -1 to 1
--   reliability  higher is stabler; at most 1
--   median       higher is stabler; at most 1
--
-- Columns:
--   n            Number of instances
--   seeds        Number of seeds, that of the run among them
--   spearman     Mean Spearman correlation between two seeds, -1 to 1; higher is stabler
--   reliability  Mean share of the variance between tokens that isn't chance, at most 1; higher is
--                stabler. Below 0 there is nothing but chance
--   median       Median of the same
create view reliability as
select
    evaluation,
    method,
    count(*) as n,
    max(seeds) as seeds,
    avg(spearman) as spearman,
    avg(reliability) as reliability,
    median(reliability) as median
from reliability_by_instance
group by evaluation, method
order by evaluation, method;
