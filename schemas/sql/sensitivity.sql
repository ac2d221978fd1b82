-- How far noise on the input moves a method's scores: one row per check and method, over instances
-- (`attribeam check`). Noise is uniform, of a radius relative to the input, where the encoder
-- begins (of pictures, on pixels), the same for all methods.
--
-- Lower is stabler, and stable isn't right. What fools it: a method that gives the same whatever
-- the input, such as `random` with one seed, has 0, so look at `infidelity` beside; a larger radius
-- and more draws make the largest larger; draws that change the prediction are of another question,
-- which `unflipped` leaves out. Stochastic methods keep their seed here: `reliability` has that.
-- The scale of scores is of no consequence, but for `lipschitz`, which can't be compared between
-- methods of different units.
--
-- Methods are compared on the instances that all of them have:
--
--   from sensitivity_over(common := false)
--   from sensitivity_over(methods := ['lime', 'saliency'])
--
-- Metrics:
--   largest    lower is stabler; 0 or more
--   average    lower is stabler; 0 or more
--   unflipped  lower is stabler; 0 or more
--   lipschitz  lower is stabler; 0 or more
--   median     lower is stabler; 0 or more
--
-- Columns:
--   n          Number of instances
--   draws      Number of draws of each
--   largest    Mean of the largest change over that of the scores, 0 or more; lower is stabler. Yeh
--              et al. 2019 (max-sensitivity)
--   median     Median of the same, which few instances with tiny scores don't move
--   average    Mean of the mean change
--   unflipped  Mean of the largest change among draws that leave the prediction
--   lipschitz  Mean of the largest change over the size of the noise, 0 or more; lower is stabler.
--              Alvarez-Melis & Jaakkola 2018
--   flipped    Share of all draws that change the predicted class
--   left_out   Number of instances that some method has and that are not among n
create macro sensitivity_over(common := true, methods := null) as table
with own as materialized (
    select
        *,
        count(*) over (partition by evaluation, instance_id) as had,
        count(distinct method) over (partition by evaluation) as most
    from sensitivity_by_instance
    where methods is null or list_contains(methods, method)
)

select
    evaluation,
    method,
    count(*) filter (not common or had = most) as n,
    max(draws) as draws,
    avg(largest) filter (not common or had = most) as largest,
    median(largest) filter (not common or had = most) as median,
    avg(average) filter (not common or had = most) as average,
    avg(unflipped) filter (not common or had = most) as unflipped,
    avg(lipschitz) filter (not common or had = most) as lipschitz,
    sum(flipped) filter (not common or had = most)
    / sum(own.draws) filter (not common or had = most) as flipped,
    any_value(t.total) - n as left_out
from own
join (
    select evaluation, count(distinct instance_id) as total from own group by evaluation
) as t using (evaluation)
group by evaluation, method
order by evaluation, method;

create view sensitivity as
from sensitivity_over();
