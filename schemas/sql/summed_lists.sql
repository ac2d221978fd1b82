-- Sum of lists of the same length, element by element.
create macro summed_lists(lists) as
    case
        when len(lists) = 1 then lists[1]
        else list_transform(
            range(1, len(lists[1]) + 1),
            lambda i: list_sum(list_transform(lists, lambda one: one[i]))
        )
    end;
