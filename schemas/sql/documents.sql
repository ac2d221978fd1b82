-- What the model says of a whole row of the corpus: one row per row of the corpus and question.
--
-- Under `--overflow stride` a text that is longer than the model's limit is several instances, its
-- windows. Their logits and probabilities are averaged, each window with the same weight, and the
-- class with the largest mean probability is predicted (of equal ones the first). Texts that fitted
-- are one window. Rows of which every window failed are not here but in `failures`.
--
-- Models that are asked several questions about a row (each label, value or word) have a row for each.
--
-- Columns:
--   windows         Number of windows that the model gave a prediction of
--   failed_windows  Number of windows that failed
--   text            The whole text, with the first of its questions; null for a pre-tokenised corpus
--   logits          Mean of the windows' logits, per class
--   probabilities   Mean of the windows' probabilities, per class
--   prediction      Class with the largest mean probability
--   agreeing        Number of windows whose own prediction that is
--   correct         prediction = label; null without a label
--   question        Number of the question; null where there is but one
--   outputs         Name of the label or the value that is asked for; null for all classes
create view documents as
with classes as (
    select
        row_id,
        coalesce(question, -1) as asked,
        unnest(range(len(logits))) as class,
        unnest(logits) as logit,
        unnest(probabilities) as probability
    from instances
),

class_means as (
    select
        row_id,
        asked,
        class,
        avg(logit) as logit,
        avg(probability) as probability
    from classes
    group by row_id, asked, class
),

means as (
    select
        row_id,
        asked,
        list(logit order by class) as logits,
        list(probability order by class) as probabilities,
        (arg_max(class, (probability, -class)))::int as prediction
    from class_means
    group by row_id, asked
),

rows_of_corpus as (
    select
        row_id,
        coalesce(question, -1) as asked,
        count(*) as windows,
        any_value(split) as split,
        any_value(subset) as subset,
        any_value(text) as text,
        any_value(text_pair) as text_pair,
        any_value(label) as label,
        list(prediction) as predictions,
        any_value(question) as question,
        any_value(outputs) as outputs
    from instances
    group by row_id, asked
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
    m.prediction = r.label as correct,
    r.question,
    r.outputs
from rows_of_corpus as r
join means as m using (row_id, asked)
left join failed as f using (row_id);
