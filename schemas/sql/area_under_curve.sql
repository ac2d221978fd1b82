-- Area under a perturbation curve by the trapezoidal rule, over the exact share removed / units.
--
-- `points` is a sorted list with a point of the curve per entry, packed into one double as
-- removed + probability / 2: the whole part is the number of units removed, and what is left is
-- half the probability (good to 1e-12). A list of numbers is collected and sorted several times as
-- fast as a list of pairs. Each step adds (x' - x) (y + y') / 2; a null list has a null area.
create macro area_under_curve(points, units) as
    list_sum(list_transform(
        points[2:],
        lambda v, i: (floor(v) - floor(points[i]))
            * (v - floor(v) + points[i] - floor(points[i]))
    )) / units;
