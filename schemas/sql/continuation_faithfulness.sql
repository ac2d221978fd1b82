-- How faithful methods are to what a language model says, over all tokens that follow, and over all
-- that follow at once: means of `continuation_faithfulness_by_instance`, a row per method, protocol,
-- operation and question_kind, with its columns' meanings.
--
-- What fools them: log-probabilities have no bound, so that a few tokens that become all but
-- impossible are most of a mean; a token that the words just before it determine is explained by
-- these under any method. Shares (normalised) are large where there is little to lose. For inputs
-- with parts missing see `faithfulness`.
--
-- Metrics:
--   aopc_log_prob           higher is better; any size
--   aopc_normalised         higher is better; any size, mostly 0 to 1
--   sufficiency             lower is better; any size
--   sufficiency_normalised  lower is better; any size, mostly 0 to 1
--   top1_drop               higher is better; any size
--   top3_drop               higher is better; any size
--   top5_drop               higher is better; any size
--   deletion                lower is better; 0 to 1
--   insertion               higher is better; 0 to 1
--   rise                    lower is better; 0 to 1
--   mas                     lower is better; 0 to 1
--   contrastive_flip        lower is better; 0 to 1
--
-- Columns:
--   n                   Number of instances
--   lost                Mean of lp(0) - lp(1), which is the same for all methods
--   aopc_log_prob       Mean over them of the mean over 0 < f < 1 of lp(0) - lp_morf(f); higher is
--                       better
--   aopc_normalised     The same as a share of what all that can be removed has to say
--   sufficiency         Mean loss where only the most relevant are kept; lower is better
--   sufficiency_normalised  The same as a share of what all that can be removed has to say
--   top1_drop           Mean loss without the 1 most relevant unit; higher is better
--   top3_drop           Mean loss without the 3 most relevant
--   top5_drop           Mean loss without the 5 most relevant
--   deletion            Mean area under the probability as the most relevant go first; lower is better
--   insertion           Mean area as the least relevant go first; higher is better
--   rise                Mean area under the curve of log-probability, from 1 to 0; lower is better
--   mas                 Mean area of that with its distance from the scores; lower is better
--   contrastive_flip    Mean share removed until the foil is the likelier one; lower is better
create view continuation_faithfulness as
select
    method,
    protocol,
    operation,
    question_kind,
    count(*) as n,
    avg(lost) as lost,
    avg(aopc_log_prob) as aopc_log_prob,
    avg(aopc_normalised) as aopc_normalised,
    avg(sufficiency) as sufficiency,
    avg(sufficiency_normalised) as sufficiency_normalised,
    avg(top1_drop) as top1_drop,
    avg(top3_drop) as top3_drop,
    avg(top5_drop) as top5_drop,
    avg(deletion) as deletion,
    avg(insertion) as insertion,
    avg(rise) as rise,
    avg(mas) as mas,
    avg(contrastive_flip) as contrastive_flip
from continuation_faithfulness_by_instance
group by method, protocol, operation, question_kind
order by question_kind desc, protocol, operation, aopc_log_prob desc;
