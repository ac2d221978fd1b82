-- Spearman's correlation of two lists of numbers: Pearson's of their ranks, equal numbers sharing
-- their mean rank; null where either has the same number everywhere, or there is but one. Of two
-- equal lists it is 1 exactly.
create macro rank_correlation(one, other) as
    list_transform(
        [{'one': centred_ranks(one), 'other': centred_ranks(other)}],
        lambda ranks: list_inner_product(ranks.one, ranks.other) / nullif(
            sqrt(
                list_inner_product(ranks.one, ranks.one)
                * list_inner_product(ranks.other, ranks.other)
            ),
            0
        )
    )[1];
