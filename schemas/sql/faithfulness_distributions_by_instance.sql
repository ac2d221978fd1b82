-- How all that the model says changes as what a method calls relevant is removed, and not the
-- probability of one class alone: one row per instance, method, protocol and operation. ERASER's
-- entropy and KL forms of comprehensiveness and sufficiency (DeYoung et al. 2020), which its paper
-- doesn't define and its code does, for one rationale; here they are means over the fractions of
-- the curves, as its areas are.
--
-- P(f) is the distribution with the nominal fraction f of the units removed, over the classes (of a
-- masked LM over its two words, of a label over its absence and presence); of a token that follows
-- a prompt over the whole vocabulary. H is its entropy, KL(P || Q) = sum P ln(P / Q), both in nats.
-- Columns named after an order that was not run are null. Models whose outputs are values, all that
-- follows a prompt at once, and curves that were written before they held an entropy have no
-- row. Else rows are those of `faithfulness_by_instance`. What fools them is said in
-- `faithfulness_distributions`.
--
-- Metrics:
--   comprehensiveness_entropy  lower is better; minus to plus the logarithm of the number of
--                              outputs
--   sufficiency_entropy        nearest to 0 is best; minus to plus the logarithm of the number of
--                              outputs
--   comprehensiveness_kl       higher is better; 0 or more
--   sufficiency_kl             lower is better; 0 or more
--
-- Columns:
--   units                      Number of units that can be removed
--   entropy                    H(P(0)), how unsure the model is of the whole input; 0 to the
--                              logarithm of the number of classes
--   comprehensiveness_entropy  Mean over 0 < f < 1 of H(P(0)) - H(P_morf(f)), minus to plus that
--                              logarithm. Lower is better: below 0 where the model is less sure
--                              without the most relevant
--   sufficiency_entropy        Mean over 0 < f < 1 of H(P(0)) - H(P_lerf(1 - f)), in that range.
--                              Nearest to 0 is best: as sure of the most relevant alone as of all
--   comprehensiveness_kl       Mean over 0 < f < 1 of KL(P_morf(f) || P(0)), 0 to any size. Higher
--                              is better
--   sufficiency_kl             Mean over 0 < f < 1 of KL(P_lerf(1 - f) || P(0)), 0 to any size.
--                              Lower is better
create view faithfulness_distributions_by_instance as
select
    instance_id,
    method,
    protocol,
    operation,
    max(units) as units,
    max(entropy::double) filter (fraction = 0) as entropy,
    max(entropy::double) filter (fraction = 0)
    - avg(entropy) filter ("order" = 'morf' and fraction > 0 and fraction < 1)
        as comprehensiveness_entropy,
    max(entropy::double) filter (fraction = 0)
    - avg(entropy) filter ("order" = 'lerf' and fraction > 0 and fraction < 1)
        as sufficiency_entropy,
    avg(kl) filter ("order" = 'morf' and fraction > 0 and fraction < 1) as comprehensiveness_kl,
    avg(kl) filter ("order" = 'lerf' and fraction > 0 and fraction < 1) as sufficiency_kl
from curves
group by instance_id, method, protocol, operation
having min(units) > 0 and bool_and(isfinite(probability))
    and bool_and(entropy is not null and isfinite(entropy) and isfinite(kl));
