-- Ranks of a list of n numbers, centred and doubled: 2 r - n - 1, r from 1, the lowest, to n; equal
-- numbers share their mean rank. Doubled they are whole numbers, so that sums of them are exact.
--
-- Of each number the places from below and from above, in the list sorted once: with equal ones
-- these are of the first from below and of the first from above.
create macro centred_ranks(scores) as
    list_transform(
        [list_sort(scores)],
        lambda upwards: list_transform(
            [list_reverse(upwards)],
            lambda downwards: list_transform(
                scores,
                lambda s: (list_position(upwards, s) - list_position(downwards, s))::double
            )
        )[1]
    )[1];
