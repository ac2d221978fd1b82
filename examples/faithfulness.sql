-- Which method finds the tokens that the prediction rests on?
select
    method,
    comprehensiveness,
    sufficiency,
    auc_difference,
    decision_flip_fraction as decision_flip
from faithfulness
order by auc_difference desc
