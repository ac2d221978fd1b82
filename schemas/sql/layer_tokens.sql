-- Scores by layer in long form: one row per token of an instance, encoder layer and method, of the
-- methods that were run with --layers.
--
-- Special tokens are rows too; `where not special` leaves them out.
--
-- Columns:
--   layer     Encoder layer, from 0
--   position  Index of the token in the instance, from 0; special tokens count
--   token     The token string
--   local     Raw score of the token in the layer alone, at the position that is read out
--   rollout   Score of the token from the layer down to the input; those of an instance sum to 1
--   mixing    Context-mixing ratio of the token: how much of it comes from the others, 0 to 1; null
--             where the method has none
create view layer_tokens as
select
    l.instance_id,
    l.method,
    l.layer,
    generate_subscripts(l.rollout, 1) - 1 as position,
    unnest(i.tokens) as token,
    unnest(l.local) as local,
    unnest(l.rollout) as rollout,
    unnest(l.mixing) as mixing,
    unnest(i.special) as special
from layers as l
join instances as i using (instance_id);
