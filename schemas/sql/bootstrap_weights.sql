-- How often an instance counts in each of 1000 bootstrap samples: a list of 1001 numbers, of which
-- the first, 1, is for the sample as it is.
--
-- Each is a Poisson(1) variable, which is what drawing n of n with replacement comes to for large
-- n. They are functions of the instance's id and the replicate alone: the same for all methods and
-- metrics, which are therefore compared on the same samples, and the same whenever and wherever
-- they are computed. In replicate r, instance i has the count that belongs to the uniform
-- (s_i + r t_i mod P) / P, P = 2^31 - 1, with s_i and t_i from the MD5 of its id. Any two
-- replicates are then independent of each other, and more is not needed for percentiles to be as
-- exact as those of wholly independent ones.
--
-- Intervals from them assume that what ids stand for is independent of each other: the views give
-- them the ids of rows (`instances.row_id`), so that the windows of one text, and questions about
-- it, count together. Rows of equal tokens are not told apart from others: all that is random about
-- these is drawn from the tokens and is the same, so that they are one observation, counted twice.
-- Of many such rows, intervals are too narrow.
create macro bootstrap_weights(id) as
    list_prepend(1::tinyint, list_transform(
        -- A list of one, so that the MD5 is taken once.
        [{
            'start': (md5_number(id) % 2147483647)::bigint,
            'step': ((md5_number(id) >> 64) % 2147483647)::bigint
        }],
        lambda seed: list_transform(
            list_transform(
                range(1, 1001),
                lambda replicate: (seed.start + replicate * seed.step) % 2147483647 / 2147483647
            ),
            lambda u: case
                when u < 0.36787944117144233 then 0
                when u <= 0.73575888234288464 then 1
                when u < 0.91969860292860584 then 2
                when u < 0.98101184312384619 then 3
                when u < 0.99634015317265633 then 4
                when u < 0.99940581518241839 then 5
                when u < 0.99991675885071196 then 6
                when u < 0.99998975080332535 then 7
                when u < 0.99999887479740203 then 8
                else 9
            end::tinyint
        )
    )[1]);
