-- The last words of spans (`span_firsts`).
create macro span_lasts(words, first_words) as
    list_filter(words, lambda w: w = first_words or not list_contains(words, w + 1));
