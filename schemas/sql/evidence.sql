-- Whether methods find the evidence that is known: means of `evidence_by_instance`, a row per method
-- and question_kind, with its columns' meanings.
--
-- Evidence is what we know, and faithfulness what the model uses: see both.
--
-- What fools them: the model may rely on other words than the evidence that we know, and rightly
-- so; of short prompts even a random order finds it (`chance`). A mean reciprocal rank is made by
-- the first places.
--
-- Metrics:
--   mrr     higher is better; 0 to 1
--   recall  higher is better; 0 to 1
--
-- Columns:
--   n                Number of instances
--   subset           Subset of the corpus, where it has any
--   mrr              Mean reciprocal rank of the best token of the evidence; higher is better
--   recall           Mean share of the evidence among as many tokens, the best ones; higher is better
--   chance           What recall is for a random order, on average
create view evidence as
select
    e.method,
    e.question_kind,
    i.subset,
    count(*) as n,
    avg(e.reciprocal_rank) as mrr,
    avg(e.recall) as recall,
    avg(e.chance) as chance
from evidence_by_instance as e
join instances as i using (instance_id)
group by e.method, e.question_kind, i.subset
order by e.question_kind desc, i.subset, mrr desc;
