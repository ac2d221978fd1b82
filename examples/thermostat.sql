-- One of Thermostat's configurations: a model, a data set and an explainer, without padding.
--   attribeam query OUT examples/thermostat.sql -o thermostat.parquet
--   datasets.load_dataset('parquet', data_files='thermostat.parquet')
-- Its `idx` is the number of the row in the data set, which windows and questions have in common.
select
    i.corpus_row as idx,
    a.scores as attributions,
    i.logits as predictions,
    i.input_ids,
    i.label
from attributions as a
join instances as i using (instance_id)
where a.method = 'integrated_gradients' and i.window is null and i.question is null
order by idx
