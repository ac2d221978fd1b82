-- Whether a method finds the evidence that is known for what follows a prompt: one row per instance
-- and method, of corpora whose words have a rationale.
--
-- Ranked are the tokens that can be removed, by raw score, the highest first; of equal ones each has
-- the mean of their ranks.
--
-- What fools them is said in `evidence`.
--
-- Metrics:
--   reciprocal_rank  higher is better; 0 to 1
--   recall           higher is better; 0 to 1
--
-- Columns:
--   tokens           Number of tokens that are ranked
--   marked           Those of the evidence
--   reciprocal_rank  1 over the rank of the best of these, 0 to 1; higher is better. Ferrando et al.
--                    2023 (ALTI-Logit)
--   recall           Share of the evidence among as many tokens, the best ones; higher is better
--   chance           What recall is for a random order, on average
create view evidence_by_instance as
with cells as (
    select
        c.instance_id,
        c.method,
        i.question_kind,
        c.score,
        i.rationale[c.position + 1] = 1 as evidence
    from continuations as c
    join instances as i using (instance_id)
    where c.removable and i.rationale is not null
),

ranked as (
    select
        *,
        rank() over same + (count(*) over equal - 1) / 2 as place,
        count(*) filter (evidence) over whole as marked
    from cells
    window
        same as (partition by instance_id, method order by score desc),
        equal as (partition by instance_id, method, score),
        whole as (partition by instance_id, method)
)

select
    instance_id,
    method,
    any_value(question_kind) as question_kind,
    count(*) as tokens,
    any_value(marked) as marked,
    1 / min(place) filter (evidence) as reciprocal_rank,
    count(*) filter (evidence and place <= marked) / any_value(marked) as recall,
    any_value(marked) / count(*) as chance
from ranked
group by instance_id, method
having any_value(marked) > 0;
