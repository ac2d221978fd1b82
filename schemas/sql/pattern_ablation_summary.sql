-- What a model still gets right when all but the nodes of patterns is set to zero: one row per
-- method, subset and kind of what is kept, and one over all instances (Lu et al. 2021).
--
-- Kept is the union over an instance's words, and the position read out as it enters and leaves
-- the model. Sets of different sizes aren't compared without the
-- columns that say how large they are.
--
--   whole               everything
--   nothing             the position read out alone
--   embedding           the nodes of the patterns, with all heads and skips between them
--   attention           those nodes, and of heads and skips only those of the patterns
--   attention_no_skip   the same without any skip
--   random              the nodes of random paths of the same words
--   attention_greedy    those of paths of large attention, found step by step,
--   attention_beam      by beam search,
--   attention_viterbi   as the best of all,
--   attention_rollout   or through the rolled out attention
--   conductance         as many nodes of each layer as `embedding` has, those of most conductance
--   internal_influence  the same by internal influence
--
-- Right is an instance whose output is still above 0, which is what its patterns explain. A model
-- that says nothing is right by chance, so that `nothing` and `random` are what to compare with.
-- Instances with an output that isn't finite are left out, with all of their kinds.
--
-- What fools it: a model that keeps little may fall back on the most frequent class, and be right
-- as often as that is; `accuracy_kept` may be above 1.
--
-- Metrics:
--   accuracy       higher is better; 0 to 1
--   accuracy_kept  higher is better; 0 or more
--
-- Columns:
--   subset         Subset of the corpus; null for all instances
--   kind           What is kept
--   n              Number of instances
--   accuracy       Share of them that are right
--   accuracy_kept  accuracy over that of the kind `whole` on the same subset; not bounded by 1
--   output         Mean output, in units of what is explained
--   nodes          Mean number of nodes kept
--   heads          Mean number of attention heads kept, each at one position; null for all
--   skips          Mean number of skip connections kept, each at one position; null for all
create view pattern_ablation_summary as
with summed as (
    select
        a.method,
        i.subset,
        a.kind,
        count(*) as n,
        avg(a.correct::int) as accuracy,
        avg(a.output::double) as output,
        avg(a.nodes_kept) as nodes,
        avg(a.heads_kept) as heads,
        avg(a.skips_kept) as skips
    from pattern_ablation as a
    anti join (from pattern_ablation where not isfinite(output)) as u using (instance_id, method)
    join instances as i using (instance_id)
    group by grouping sets ((a.method, i.subset, a.kind), (a.method, a.kind))
    having grouping(i.subset) = 1 or i.subset is not null
)

select
    method,
    subset,
    kind,
    n,
    accuracy,
    accuracy / nullif(
        any_value(accuracy) filter (kind = 'whole') over (partition by method, subset), 0
    ) as accuracy_kept,
    output,
    nodes,
    heads,
    skips
from summed
order by method, subset nulls first, accuracy desc nulls last, kind;
