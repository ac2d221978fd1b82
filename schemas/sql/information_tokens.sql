-- Information by layer in long form: one row per token of an instance, encoder layer and method, of
-- the bottleneck methods that were run with --layers.
--
-- The role says what kind of token it is: `readout` (the position that the prediction is read from,
-- [CLS] or the [MASK]), `special` (the other special tokens), `rationale` (of a word in the human
-- rationale, where there is one), `punctuation` (neither letter nor digit in it) or `text`.
--
-- Columns:
--   layer     Encoder layer after which the bottleneck sits, from 0
--   position  Index of the token in the instance, from 0; special tokens count
--   token     The token string
--   role      readout, special, rationale, punctuation or text
--   correct   prediction = label; null without a label
--   bits      Information of the token that passes the bottleneck
create view information_tokens as
select
    f.instance_id,
    f.method,
    f.layer,
    f.target,
    f.position,
    f.token,
    case
        when f.position = f.readout then 'readout'
        when f.special then 'special'
        when f.rationale = 1 then 'rationale'
        when not regexp_matches(f.token, '[\p{L}\p{N}]') then 'punctuation'
        else 'text'
    end as role,
    f.correct,
    f.bits
from (
    select
        n.instance_id,
        n.method,
        n.layer,
        n.target,
        i.readout,
        i.correct,
        generate_subscripts(n.bits, 1) - 1 as position,
        unnest(i.tokens) as token,
        unnest(i.special) as special,
        unnest(i.rationale) as rationale,
        unnest(n.bits) as bits
    from information as n
    join instances as i using (instance_id)
) as f;
