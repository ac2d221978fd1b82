-- ERASER's predictions of one method, a document a line, with a score for each of its words:
--   attribeam query OUT examples/eraser.sql -o predictions.jsonl
-- Texts that were cut, and windows, have words that were not seen: they are left out.
with scores as (
    select instance_id, list(score order by segment, word_id) as scores
    from words
    where method = 'saliency'
    group by instance_id
)

select
    i.instance_id as annotation_id,
    [
        {'docid': i.instance_id, 'soft_rationale_predictions': s.scores}
    ] as rationales,
    coalesce(r.model_labels[i.prediction + 1], i.prediction::varchar) as classification
from instances as i
join scores as s using (instance_id)
cross join run as r
where not i.truncated and i.window is null
order by i.corpus_row, i.instance_id
