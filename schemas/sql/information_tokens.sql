-- Information by layer in long form: one row per token of an instance, encoder layer and method, of
-- the bottleneck methods that were run with --layers.
--
-- The role says what kind of token it is: `readout` (the position that the prediction is read from,
-- [CLS] or the [MASK]), `special` (the other special tokens), `rationale` (of a word in the human
-- rationale, where there is one), `punctuation` (neither letter nor digit in it) or `text`. That is
-- asked of the characters of the text that the token stands for; without a text, of the token string,
-- which of byte-level tokenizers shows ASCII alone as it is.
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
        when not regexp_matches(f.piece, '[\p{L}\p{N}]') then 'punctuation'
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
        unnest(
            list_transform(
                list_zip(i.tokens, i.segment, i.char_start, i.char_end),
                lambda t: case
                    -- A mark of a blank before it (byte-level BPE, sentencepiece) is no letter.
                    when own.text is null then regexp_replace(t[1], '^[Ġ▁]+', '')
                    else substring(if(t[2] = 1, own.text_pair, own.text), t[3] + 1, t[4] - t[3])
                end
            )
        ) as piece,
        unnest(i.special) as special,
        unnest(i.rationale) as rationale,
        unnest(n.bits) as bits
    from information as n
    join instances as i using (instance_id)
    -- The text of several windows is stored once.
    left join (
        select row_id, text, text_pair from instances where text is not null
    ) as own on i.row_id = own.row_id
) as f;
