-- Kendall's tau b of two lists of n numbers: concordant less discordant pairs over the geometric
-- mean of the numbers of pairs that each list tells apart (Kendall 1945); null where one of them
-- tells none apart.
--
-- Ties are broken in the order of the lists and against it: what is inverted in the mean of the
-- ways is half of the pairs that either ties, which leaves what both tell apart.
create macro kendall_tau(one, other) as
    list_transform(
        list_transform(
            [{
                'one': list_grade_up(list_transform(one, lambda s, i: {'score': s, 'at': i})),
                'one_back': list_grade_up(list_transform(one, lambda s, i: {'score': s, 'at': -i})),
                'other': list_grade_up(list_transform(other, lambda s, i: {'score': s, 'at': i})),
                'other_back': list_grade_up(
                    list_transform(other, lambda s, i: {'score': s, 'at': -i})
                )
            }],
            lambda o: {
                'one': o.one,
                'one_back': o.one_back,
                'rank': list_grade_up(o.other),
                'rank_back': list_grade_up(o.other_back),
                'pairs': len(o.one) * (len(o.one) - 1) / 2,
                'tied_one': inversions(list_select(list_grade_up(o.one), o.one_back)),
                'tied_other': inversions(list_select(list_grade_up(o.other), o.other_back))
            }
        ),
        lambda o: (
            o.pairs - (
                inversions(list_select(o.rank, o.one))
                + inversions(list_select(o.rank, o.one_back))
                + inversions(list_select(o.rank_back, o.one))
                + inversions(list_select(o.rank_back, o.one_back))
            ) / 2
        ) / nullif(sqrt((o.pairs - o.tied_one) * (o.pairs - o.tied_other)), 0)
    )[1];
