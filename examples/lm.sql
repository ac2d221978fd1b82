-- Which method finds the evidence that is known, and which names what the model uses?
with known as (
    select
        method,
        avg(e.reciprocal_rank) filter (i.subset = 'lookup') as mrr_lookup,
        avg(e.reciprocal_rank) filter (i.subset = 'names') as mrr_names,
        avg(e.reciprocal_rank) filter (i.subset = 'agreement') as mrr_agreement
    from evidence_by_instance as e
    join instances as i using (instance_id)
    where i.question = 0
    group by method
)

select
    method,
    mrr_lookup,
    mrr_names,
    mrr_agreement,
    aopc_log_prob,
    sufficiency
from known
join continuation_faithfulness using (method)
where continuation_faithfulness.question_kind = 'next'
order by mrr_lookup + mrr_names + mrr_agreement desc
