-- Weakly supervised segmentation: how well each method's maps find what masks show; one row per
-- method.
--
-- The protocol of Chefer et al. 2021, which Beyond Intuition follows: a map is enlarged to the
-- picture (bilinear), and pixels above its mean are found. Pixel accuracy and IoU are of the counts
-- of all pictures together; average precision and F1 are means over pictures. Beside them are the
-- pointing game (Zhang et al. 2018), and the relevance mass and rank accuracy of Arras et al. 2022.
--
-- What fools them: a mask shows where a thing is, not what the model looked at. Where things are
-- small, a map that finds nothing has a high pixel accuracy. `f1_rows` is what the authors' code
-- computes and their paper calls F1: rows of pixels that the thing doesn't touch count 0, so that
-- even a perfect map comes to no more than the share of the rows that it touches. The threshold is
-- a map's own mean, so that maps of few high values find less. Maps are of patches: no map is finer
-- than these. `random` and `mask_itself` (on by name) are the ends of the scale.
--
-- Methods are compared on the same pictures, those with a mask that all of them explain. To compare
-- each on all that it explains, or some of them alone:
--
--   from segmentation_over(common := false)
--   from segmentation_over(methods := ['bt_head', 'bt_token'])
--
-- Metrics:
--   pixel_accuracy     higher is better; 0 to 1
--   iou                higher is better; 0 to 1
--   iou_background     higher is better; 0 to 1
--   miou               higher is better; 0 to 1
--   average_precision  higher is better; 0 to 1
--   f1                 higher is better; 0 to 1
--   f1_rows            higher is better; 0 to 1
--   pointing           higher is better; 0 to 1
--   mass_inside        higher is better; 0 to 1
--   rank_accuracy      higher is better; 0 to 1
--
-- Columns:
--   n                  Number of instances
--   of_other_class     Number of them of whose explained class no mask is known to be: inside is
--                      what the picture's label is of
--   empty              Number of them with an empty mask, which count in pixel_accuracy and iou alone
--   pixel_accuracy     Share of all pixels that are inside and found, or neither, 0 to 1; higher is
--                      better
--   iou                Pixels inside and found over those inside or found; higher is better
--   iou_background     The same of the pixels outside and not found
--   miou               Mean of these two, 0 to 1; higher is better
--   average_precision  Mean over pictures, 0 to 1 (mAP); higher is better. 0.5 for maps of equal
--                      values
--   f1                 Mean over pictures, 0 to 1; higher is better
--   f1_rows            The same as it has been published; comparable with itself alone
--   pointing           Share of the pictures whose highest pixel is inside; higher is better
--   chance             Mean share of the pixels that is inside: pointing of a random map
--   mass_inside        Mean share of the positive scores inside, 0 to 1; higher is better
--   without_mass       Number of instances without a positive score, which count in no mass
--   rank_accuracy      Mean share inside of as many of the highest pixels as the mask has, 0 to 1;
--                      higher is better
--   left_out           Number of instances that some method explains and that are not among n
create macro segmentation_over(common := true, methods := null) as table
with every as materialized (
    from localisation
    where methods is null or list_contains(methods, method)
),

explained as (
    select instance_id, count(*) as by_methods
    from every
    group by instance_id
),

groups as (
    select distinct method from every
),

pooled as (
    select
        method,
        count(*) as n,
        count(*) filter (region = 'mask') as of_other_class,
        count(*) filter (empty_mask) as empty,
        sum(tp + tn) / sum(tp + fp + fn + tn) as pixel_accuracy,
        sum(tp) / nullif(sum(tp + fp + fn), 0) as iou,
        sum(tn) / nullif(sum(tn + fp + fn), 0) as iou_background,
        avg(average_precision) as average_precision,
        avg(f1) as f1,
        avg(f1_rows) as f1_rows,
        avg(hit::int) as pointing,
        avg((tp + fn) / (tp + fp + fn + tn)) filter (not empty_mask) as chance,
        avg(mass_inside) as mass_inside,
        count(*) filter (not empty_mask) - count(mass_inside) as without_mass,
        avg(rank_accuracy) as rank_accuracy
    from every
    join explained using (instance_id)
    where not common or by_methods = (select count(*) from groups)
    group by method
)

select
    method,
    coalesce(n, 0) as n,
    coalesce(of_other_class, 0) as of_other_class,
    coalesce(empty, 0) as empty,
    pixel_accuracy,
    iou,
    iou_background,
    (iou + iou_background) / 2 as miou,
    average_precision,
    f1,
    f1_rows,
    pointing,
    chance,
    mass_inside,
    coalesce(without_mass, 0) as without_mass,
    rank_accuracy,
    (select count(*) from explained) - coalesce(n, 0) as left_out
from groups
left join pooled using (method)
order by method;

create view segmentation as
from segmentation_over();
