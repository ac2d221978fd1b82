-- The connection that each instance's prediction hangs on most: one row per instance and method,
-- the strongest first (Hao et al. 2021).
--
-- It is of the one head of any layer with the largest attribution (of equals the lower layer, then
-- the lower head); heads are not summed. Its two largest entries are what the authors make
-- adversarial triggers of: their tokens, special ones excepted, where `score` is at least 0.02; the
-- second's only where `second_share` is at least 0.2.
--
-- Columns:
--   layer            Encoder layer of the head, from 0
--   head             Head of the layer, from 0
--   score            top1 + top2
--   second_share     top2 / top1; null unless top1 is above 0
--   top1             Largest attribution of the head
--   top1_from        Position of the token that takes, from 0; special tokens count
--   top1_to          Position of the token that is taken from
--   top1_from_token  The token string at top1_from
--   top1_to_token    The token string at top1_to
--   top2             Second largest; this and the next four are null for a single token
--   top2_from        Position of the token that takes
--   top2_to          Position of the token that is taken from
--   top2_from_token  The token string at top2_from
--   top2_to_token    The token string at top2_to
create view trigger_candidates as
with strongest as (
    select *
    from heads
    where isfinite(top1)
    qualify row_number() over (
        partition by instance_id, method
        order by top1 desc, layer, head
    ) = 1
)

select
    h.instance_id,
    h.method,
    h.layer,
    h.head,
    h.top1::double + coalesce(h.top2, 0) as score,
    case when h.top1 > 0 then h.top2::double / h.top1 end as second_share,
    h.top1,
    h.top1_from,
    h.top1_to,
    i.tokens[h.top1_from + 1] as top1_from_token,
    i.tokens[h.top1_to + 1] as top1_to_token,
    h.top2,
    h.top2_from,
    h.top2_to,
    i.tokens[h.top2_from + 1] as top2_from_token,
    i.tokens[h.top2_to + 1] as top2_to_token
from strongest as h
join instances as i using (instance_id)
order by score desc, h.instance_id, h.method;
