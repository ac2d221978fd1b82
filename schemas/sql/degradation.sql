-- Degradation test of each method (Schulz et al. 2020, as Jiang et al. 2020 use it on text): the
-- area between its LeRF and MoRF curves once probabilities are normalised, one row per method,
-- protocol and operation.
--
-- A normalised probability is (p - bottom) / (top - bottom), `top` being the mean probability of
-- the explained class on whole inputs and `bottom` that on inputs of which everything is removed.
-- Both are means over the corpus: an instance whose prediction hardly reacts to being emptied would
-- else divide by next to nothing. 1 is then as good as the whole text and 0 as good as none. Areas
-- are over the exact share, removed / units, by the trapezoidal rule.
--
-- `auc_difference` of `faithfulness` is the same area in units of probability, so it is the smaller
-- the less there is to lose: degradation = auc_difference / (top - bottom). It compares methods on
-- one model and corpus as `degradation` does; only `degradation` can be compared between models,
-- corpora and operations. A value is null where an order that it needs was not run or top = bottom.
--
-- Under the protocol `compat`, the end of a curve may keep a token, another one per order;
-- `bottom` is the mean over the orders.
--
-- What fools them: it is divided by what the corpus loses when all is removed, so that where that
-- is little, small differences look large. Fully degraded inputs are like nothing that the model
-- was trained on. See `faithfulness` too.
--
-- Metrics:
--   lerf         higher is better; any size, mostly 0 to 1
--   morf         lower is better; any size, mostly 0 to 1
--   degradation  higher is better; any size, mostly -1 to 1
--
-- Columns:
--   n            Number of instances
--   top          Mean probability of the explained class on whole inputs
--   bottom       Mean probability of the explained class on fully degraded inputs
--   lerf         Normalised area under the LeRF curve; higher is better
--   morf         Normalised area under the MoRF curve; lower is better
--   degradation  lerf - morf; higher is better
--   left_out     As in `faithfulness`: number of instances that are not compared
create macro degradation_over(common := true, methods := null) as table
select
    method,
    protocol,
    operation,
    n,
    top,
    bottom,
    -- Sums of the same numbers in another order differ in their last digits.
    (auc_lerf - bottom) / case when abs(top - bottom) > 1e-12 then top - bottom end as lerf,
    (auc_morf - bottom) / case when abs(top - bottom) > 1e-12 then top - bottom end as morf,
    lerf - morf as degradation,
    left_out
from faithfulness_and_ends(common, methods)
order by method, protocol, operation;

create view degradation as
from degradation_over();
