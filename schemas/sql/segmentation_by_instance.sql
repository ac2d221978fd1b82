-- How well a method's map of a picture finds what a mask shows: one row per instance and method.
--
-- What counts as found, and where inside is, is said in `localisation`; pooled over pictures it is
-- `segmentation`. What fools it is said in `segmentation`.
--
-- Metrics:
--   pixel_accuracy     higher is better; 0 to 1
--   iou                higher is better; 0 to 1
--   iou_background     higher is better; 0 to 1
--   miou               higher is better; 0 to 1
--   average_precision  higher is better; 0 to 1
--   f1                 higher is better; 0 to 1
--   pointing           higher is better; 0 to 1
--   mass_inside        higher is better; 0 to 1
--   rank_accuracy      higher is better; 0 to 1
--
-- Columns:
--   pixel_accuracy     Share of the pixels that are inside and found, or neither, 0 to 1; higher is
--                      better
--   iou                Pixels inside and found over those inside or found, 0 to 1; higher is better
--   iou_background     The same of the pixels outside and not found
--   miou               Mean of these two
--   average_precision  As in `localisation`
--   f1                 As in `localisation`
--   f1_rows            As in `localisation`
--   pointing           hit of `localisation`, 1 or 0
--   chance             Share of the pixels that is inside: pointing of a random map, on average
--   mass_inside        As in `localisation`
--   rank_accuracy      As in `localisation`, 0 to 1
create view segmentation_by_instance as
select
    instance_id,
    method,
    target,
    region,
    empty_mask,
    (tp + tn) / (tp + fp + fn + tn) as pixel_accuracy,
    tp / nullif(tp + fp + fn, 0) as iou,
    tn / nullif(tn + fp + fn, 0) as iou_background,
    (iou + iou_background) / 2 as miou,
    average_precision,
    f1,
    f1_rows,
    hit::int as pointing,
    (tp + fn) / (tp + fp + fn + tn) as chance,
    mass_inside,
    rank_accuracy
from localisation;
