-- Whether scores of what is left say how much of the output is left: means of
-- `datamodeling_by_instance`, a row per method and question_kind.
--
-- What fools it: the masks are of one distribution, which favours methods that were fitted on it;
-- removing much lowers the output whatever the scores are; and few masks make a noisy correlation.
--
-- Metrics:
--   lds  higher is better; -1 to 1
--
-- Columns:
--   n    Number of instances that have a score
--   lds  Mean linear datamodeling score; higher is better
create view datamodeling as
select
    d.method,
    i.question_kind,
    count(d.lds) as n,
    avg(d.lds) as lds
from datamodeling_by_instance as d
join instances as i using (instance_id)
group by d.method, i.question_kind
order by i.question_kind desc, lds desc;
