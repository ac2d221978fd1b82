-- Whether a method's explanations of two classes differ: one row per check and method; means over
-- instances of how alike its scores for the explained class and for the runner-up are. After Sixt
-- et al. 2020, with the runner-up in place of a random class.
--
-- Low is good: what says the same of two classes explains neither. Methods that depend on no class
-- say the same by construction, and have no row. What fools it: of two classes, signed methods that
-- share out logits have -1 for no merit, since the one's evidence is the other's against; look at
-- `spearman_absolute` too, where the same words may well matter to both.
--
-- Metrics:
--   spearman           lower is better; -1 to 1
--   spearman_absolute  lower is better; -1 to 1
--   jaccard            lower is better; 0 to 1
--
-- Columns:
--   n                  Number of instances
--   spearman           Mean Spearman correlation of the scores for the two classes, -1 to 1; low is
--                      good
--   spearman_absolute  The same of absolute scores
--   jaccard            Mean overlap of the highest quarter of the tokens, 0 to 1; low is good
create view random_logit as
select
    evaluation,
    method,
    count(*) as n,
    avg(spearman) as spearman,
    avg(spearman_absolute) as spearman_absolute,
    avg(jaccard) as jaccard
from randomisation_by_instance
where kind = 'class'
group by evaluation, method
order by evaluation, method;
