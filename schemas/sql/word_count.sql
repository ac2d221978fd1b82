-- Number of words of a text: runs of characters that are no whitespace, as rationales count them.
--
-- Whitespace is what Python takes for it, which is more than what `\s` stands for in DuckDB.
create macro word_count(text) as
    len(regexp_extract_all(text, '[^\p{Z}\t-\r\x1c-\x1f\x{85}]+'));
