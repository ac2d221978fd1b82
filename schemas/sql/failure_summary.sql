-- What failed, and how often: one row per stage, method and class of error.
--
-- Columns:
--   stage     read, encode, forward, attribute or perturb
--   method    The method that failed; null if the instance failed for all of them
--   error     Class of the error
--   count     Number of instances
--   example   An instance that failed so: the first by id
--   message   Its message
create view failure_summary as
select
    stage,
    method,
    error,
    count(*) as count,
    min(instance_id) as example,
    arg_min(message, instance_id) as message
from failures
group by all
order by count desc, stage, method, error;
