-- Which method finds what the prediction rests on, where the shape is, and of two the right one?
select
    method,
    auc_difference,
    miou,
    pointing,
    own_share,
    own_hit
from faithfulness
join segmentation using (method)
join class_discrimination using (method)
order by own_share desc, auc_difference desc
