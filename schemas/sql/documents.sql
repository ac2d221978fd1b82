-- What the model says of a whole row of the corpus: one row per row of the corpus.
--
-- Under `--overflow stride` a text that is longer than the model's limit is several instances, its
-- windows. Their logits and probabilities are averaged, each window with the same weight, and the
-- class with the largest mean probability is predicted (of equal ones the first). Texts that fitted
-- are one window. Rows of which every window failed are not here but in `failures`.
--
-- Columns:
--   windows         Number of windows that the model gave a prediction of
--   failed_windows  Number of windows that failed
--   text            The whole text; null for a pre-tokenised corpus
--   logits          Mean of the windows' logits, per class
--   probabilities   Mean of the windows' probabilities, per class
--   prediction      Class with the largest mean probability
--   agreeing        Number of windows whose own prediction that is
--   correct         prediction = label; null without a label
create view documents as
with classes as (
    select
        row_id,
        unnest(range(len(logits))) as class,
        unnest(logits) as logit,
        unnest(probabilities) as probability
    from instances
),

class_means as (
    select
        row_id,
        class,
        avg(logit) as logit,
        avg(probability) as probability
    from classes
    group by row_id, class
),

means as (
    select
        row_id,
        list(logit order by class) as logits,
        list(probability order by class) as probabilities,
        (arg_max(class, (probability, -class)))::int as prediction
    from class_means
    group by row_id
),

rows_of_corpus as (
    select
        row_id,
        count(*) as windows,
        any_value(split) as split,
        any_value(subset) as subset,
        any_value(text) as text,
        any_value(text_pair) as text_pair,
        any_value(label) as label,
        list(prediction) as predictions
    from instances
    group by row_id
),

failed as (
    select row_id, count(*) as failed_windows
    from failures
    where method is null
    group by row_id
)

select
    r.row_id,
    r.split,
    r.subset,
    r.windows,
    coalesce(f.failed_windows, 0) as failed_windows,
    r.text,
    r.text_pair,
    r.label,
    m.logits,
    m.probabilities,
    m.prediction,
    len(list_filter(r.predictions, lambda p: p = m.prediction)) as agreeing,
    m.prediction = r.label as correct
from rows_of_corpus as r
join means as m using (row_id)
left join failed as f using (row_id);
