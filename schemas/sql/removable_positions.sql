-- The positions of an instance, from 1, of the tokens that can be removed: those that are neither
-- special nor read out.
create macro removable_positions(special, readout) as
    list_filter(
        range(1, len(special) + 1),
        lambda position: not special[position] and position is distinct from readout + 1
    );
