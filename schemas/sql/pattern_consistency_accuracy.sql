-- Whether a model is right where its patterns are consistent: one row per method, level and role of
-- the word, and one over all roles (Lu et al. 2021).
--
-- A group of `pattern_consistency` is one point: the entropy of its patterns, and the accuracy on
-- its instances. A negative correlation says that patterns which vary less go with a higher
-- accuracy. The groups of a role differ in their subset, of which there are few, and so a
-- correlation of a role is a hint and no test. Over all roles the points aren't independent: those
-- of a subset share their accuracy.
--
-- Columns:
--   level        embedding or attention
--   source_role  Role of the word that the patterns are of; null for all groups of all roles
--   groups       Number of groups with an accuracy
--   correlation  Pearson's, of entropy and accuracy; null if one of them is the same everywhere
create view pattern_consistency_accuracy as
select
    method,
    level,
    source_role,
    count(accuracy) as groups,
    case
        when stddev_pop(entropy) filter (accuracy is not null) > 1e-12
            and stddev_pop(accuracy) > 1e-12
            then corr(entropy, accuracy)
    end as correlation
from pattern_consistency
group by grouping sets ((method, level, source_role), (method, level))
order by method, level, source_role nulls first;
