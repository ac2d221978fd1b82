-- Number of predicted spans that match a span of the rationale: intersection over union at least
-- 0.5, in words (DeYoung et al. 2020, ERASER).
--
-- Spans are given by their first and their last words, a list each. Where the spans of either side
-- are runs with gaps between them, a span matches at most one other, so that this is also the
-- number of the rationale's spans that are matched.
create macro matching_spans(firsts, lasts, true_firsts, true_lasts) as
    len(list_filter(
        firsts,
        lambda first, i: len(list_filter(
            true_firsts,
            lambda true_first, j:
                3 * (least(lasts[i], true_lasts[j]) - greatest(first, true_first) + 1)
                >= lasts[i] - first + 1 + true_lasts[j] - true_first + 1
        )) > 0
    ));
