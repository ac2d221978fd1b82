-- A word as it stands in a text, by what the offsets of its tokens enclose.
--
-- Byte-level tokenizers count blanks and line breaks into the word that follows; they are left out,
-- unless the word is nothing else. Accents and invisible characters that a tokenizer drops are part
-- of the word that they stand in: those that follow it, and those between whitespace and it.
-- Whitespace is what Python takes for it. `excerpt` is the text around the word, `before` the number
-- of characters in front of what the offsets enclose, `width` the number that they enclose.
create macro word_within(excerpt, before, width) as
    case
        -- Nothing dropped, since ASCII is neither accent nor invisible, and no whitespace: as most.
        when strlen(excerpt) = length(excerpt)
            and not regexp_matches(excerpt[before + 1:before + width], '^[\x00-\x20]|[\x00-\x20]$')
            then excerpt[before + 1:before + width]
        else regexp_extract(
            excerpt[:before],
            '(?:^|[\p{Z}\t-\r\x1c-\x1f\x{85}])([\p{M}\p{Cf}\x{fffd}]+)$',
            1
        )
        || coalesce(
            nullif(
                regexp_replace(
                    excerpt[before + 1:before + width],
                    '^[\p{Z}\t-\r\x1c-\x1f\x{85}]+|[\p{Z}\t-\r\x1c-\x1f\x{85}]+$',
                    '',
                    'g'
                ),
                ''
            ),
            excerpt[before + 1:before + width]
        )
        || regexp_extract(excerpt[before + width + 1:], '^[\p{M}\p{Cf}\x{fffd}]+')
    end;
