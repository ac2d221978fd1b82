-- The first words of spans: of runs of neighbouring words, given by their numbers from 1. A span
-- ends with the first text of a pair, which has so many words; where a rationale is of one text,
-- these are all or none.
create macro span_firsts(words, first_words) as
    list_filter(words, lambda w: w = first_words + 1 or not list_contains(words, w - 1));
