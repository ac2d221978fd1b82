-- How much each attention head matters to the prediction: one row per method, layer and head.
--
-- The importance of a head is the mean over instances of the largest attribution in its attention
-- matrix (Hao et al. 2021). A largest value grows with the length of the text, so
-- importances are compared between heads, not between corpora of other lengths. Beside it stand
-- what else heads have been pruned by: mean attention, and Taylor expansions
-- (Molchanov et al. 2017; Michel et al. 2019), of which the authors' released code uses
-- `taylor_logits` / `taylor_logits_norm`. To prune a share of the heads, take away those of the
-- largest ranks.
--
-- Several methods are compared on the same instances; `head_importance_over(common := false)` has
-- each method's own.
--
-- Columns:
--   layer               Encoder layer, from 0
--   head                Head of the layer, from 0
--   n                   Number of instances
--   tokens              Their mean number of tokens, special tokens included
--   importance          Mean of the head's largest attribution
--   rank                Rank by importance over all layers, 1 for the largest; of equals the lower
--                       layer, then the lower head, is first
--   layer_rank          The same within the layer
--   attention           Mean over instances and tokens of the largest attention that the token
--                       pays. (The mean of all attention is no measure: it is 1 / T for every head.)
--   taylor_loss         Mean of |context . d loss / d context|, summed over the tokens
--   taylor_logits       The same for the sum of the logits
--   taylor_logits_norm  The l2 norm of taylor_logits over the heads of the layer
--   left_out            Number of instances that some method has heads of and that are not among n
create macro head_importance_over(common := true, methods := null) as table
with chosen as materialized (
    from compared('heads', common, methods)
),

averaged as (
    select
        h.method,
        h.layer,
        h.head,
        count(*) as n,
        avg(len(i.tokens)) as tokens,
        avg(h.attr_max::double) as importance,
        avg(h.attention_mean::double) as attention,
        avg(h.taylor_loss::double) as taylor_loss,
        avg(h.taylor_logits::double) as taylor_logits,
        any_value(k.total) - n as left_out
    from heads as h
    join (from chosen where compared) as k using (instance_id, method)
    join instances as i using (instance_id)
    group by all
)

select
    method,
    layer,
    head,
    n,
    tokens,
    importance,
    row_number() over (partition by method order by importance desc, layer, head) as rank,
    row_number() over (partition by method, layer order by importance desc, head) as layer_rank,
    attention,
    taylor_loss,
    taylor_logits,
    sqrt(sum(taylor_logits ** 2) over (partition by method, layer)) as taylor_logits_norm,
    left_out
from averaged
order by method, layer, head;

create view head_importance as
from head_importance_over();
