-- The degradation test with 95 % intervals (see degradation.yaml).
select
    d.method,
    d.n,
    d.top,
    d.bottom,
    d.lerf,
    d.morf,
    d.degradation,
    i.low,
    i.high
from degradation as d
join degradation_intervals as i using (method, protocol, operation)
order by d.degradation desc
