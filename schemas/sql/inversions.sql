-- Number of inversions of a permutation of 1 to n: the pairs whose larger value comes first.
--
-- A value may stand for one that it shares with others: where v is that of which l follow as equal,
-- v + 65536 l is its code, and pairs of equals are no inversions, in whatever order they are.
--
-- One pass in which the values seen so far are bits of a number: those larger than the next value
-- are the bits above its own. Up to 50 values, the bits and the count (in the bits above them) fit
-- a bigint, up to 110 a hugeint; longer lists have a bit string, at several times the cost a value.
create macro inversions(permutation) as
    case
        when len(permutation) <= 50 then list_reduce(
            permutation,
            lambda seen, v: seen + (1::bigint << ((v & 65535)::bigint - 1))
                + bit_count((seen & 1125899906842623) >> ((v & 65535) + (v >> 16))::bigint)
                    * 1125899906842624,
            0::bigint
        ) >> 50
        when len(permutation) <= 110 then list_reduce(
            permutation,
            lambda seen, v: seen + (1::hugeint << ((v & 65535)::hugeint - 1))
                + bit_count(
                    (seen & 1298074214633706907132624082305023::hugeint)
                    >> ((v & 65535) + (v >> 16))::hugeint
                )::hugeint * 1298074214633706907132624082305024::hugeint,
            0::hugeint
        ) >> 110
        else list_reduce(
            list_transform(permutation, lambda v: {'seen': null::bit, 'n': v::bigint}),
            lambda state, v: {
                'seen': set_bit(state.seen, (v.n & 65535)::int - 1, 1),
                'n': state.n + bit_count(state.seen << ((v.n & 65535) + (v.n >> 16))::int)
            },
            {'seen': bitstring('0', len(permutation)::int), 'n': 0::bigint}
        ).n
    end::bigint;
