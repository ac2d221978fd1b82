-- Ranks of a list of n numbers, centred and doubled: 2 r - n - 1, r from 1, the lowest, to n; equal
-- numbers share their mean rank. Doubled they are whole numbers, so that sums of them are exact.
create macro centred_ranks(scores) as
    case
        when list_unique(scores) < len(scores) then list_transform(
            -- Equal scores in the order of the text and against it: the mean of both is theirs.
            [{
                'forward': list_grade_up(list_grade_up(
                    list_transform(scores, lambda s, i: {'score': s, 'at': i})
                )),
                'backward': list_grade_up(list_grade_up(
                    list_transform(scores, lambda s, i: {'score': s, 'at': -i})
                ))
            }],
            lambda found: list_transform(
                found.forward,
                lambda r, i: (r + found.backward[i] - len(found.forward) - 1)::double
            )
        )[1]
        else list_transform(
            list_grade_up(list_grade_up(scores)),
            lambda r: (2 * r - len(scores) - 1)::double
        )
    end;
