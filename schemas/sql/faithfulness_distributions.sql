-- How all that the model says changes as what methods call relevant is removed: the means of
-- `faithfulness_distributions_by_instance`, one row per method, protocol and operation. ERASER's
-- entropy and KL forms of comprehensiveness and sufficiency (DeYoung et al. 2020), over the
-- fractions of the curves; with `--fractions eraser`, over its own. Every instance counts the same.
--
-- What fools it: entropy says how sure the model is, and not of what, so that a prediction that
-- turns into another, as sure one changes nothing; the KL columns see that. A divergence has no
-- bound: a few inputs that the model was all but sure of, and that turn, can be most of its mean.
-- Sure models, and such as aren't calibrated, have larger values whatever the method, so compare
-- methods on one model. Over a vocabulary most of it is of words that have no part in what is
-- explained. Emptied inputs are like no text that the model ever saw, as in `faithfulness`.
--
-- Methods are compared on the same instances, as in `faithfulness`:
--
--   from faithfulness_distributions_over(common := false)
--   from faithfulness_distributions_over(methods := ['lime', 'saliency'])
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
--   n                          Number of instances that are compared
--   entropy                    Mean entropy of what the model says of whole inputs, in nats; of no
--                              method's making
--   comprehensiveness_entropy  Mean entropy of the whole less that without the most relevant, in
--                              nats, minus to plus the logarithm of the number of classes (of a
--                              language model, of tokens); lower is better, below 0 where the model
--                              is less sure without them
--   sufficiency_entropy        The same with the most relevant alone, in the same range; nearest to
--                              0 is best
--   comprehensiveness_kl       Mean divergence without the most relevant from the whole, in nats, 0
--                              to any size; higher is better
--   sufficiency_kl             The same with the most relevant alone; lower is better
--   left_out                   Number of instances that some method has curves of and that are not
--                              among n, those of before entropies were stored among them
create macro faithfulness_distributions_over(common := true, methods := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

had as materialized (
    select
        f.*,
        count(*) over (partition by instance_id, protocol, operation) as had
    from faithfulness_distributions_by_instance as f
    semi join (from chosen where compared) as k using (instance_id, method, protocol, operation)
),

-- Files of before have no entropies: who has none at all is no bar to the others.
needed as (
    select
        protocol,
        operation,
        count(distinct method) as needed
    from had
    group by protocol, operation
),

means as (
    select
        method,
        protocol,
        operation,
        count(*) as n,
        avg(entropy) as entropy,
        avg(comprehensiveness_entropy) as comprehensiveness_entropy,
        avg(sufficiency_entropy) as sufficiency_entropy,
        avg(comprehensiveness_kl) as comprehensiveness_kl,
        avg(sufficiency_kl) as sufficiency_kl
    from had
    join needed using (protocol, operation)
    where not common or had = needed
    group by method, protocol, operation
)

select
    method,
    protocol,
    operation,
    coalesce(n, 0) as n,
    entropy,
    comprehensiveness_entropy,
    sufficiency_entropy,
    comprehensiveness_kl,
    sufficiency_kl,
    total - coalesce(n, 0) as left_out
from (
    select
        method,
        protocol,
        operation,
        any_value(total) as total
    from chosen
    group by all
) as ways
left join means using (method, protocol, operation)
order by method, protocol, operation;

create view faithfulness_distributions as
from faithfulness_distributions_over();
