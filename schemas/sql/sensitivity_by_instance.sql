-- How far noise on an instance's input moves a method's scores: one row per check, instance and
-- method (`attribeam check`, table `noised`), over the tokens that can be removed; or over all:
--
--   from sensitivity_by_instance_over(all_tokens := true)
--
-- What they mean, and what fools them, is said in `sensitivity`. Rows that failed don't count.
--
-- Metrics:
--   largest    lower is stabler; 0 or more
--   average    lower is stabler; 0 or more
--   unflipped  lower is stabler; 0 or more
--   lipschitz  lower is stabler; 0 or more
--
-- Columns:
--   draws        Number of draws
--   flipped      Number of them that change the predicted class
--   largest      Largest |phi(x + e) - phi(x)| / |phi(x)| over the draws, l2 norms, 0 or more; lower
--                is stabler. Null where all scores are 0. Yeh et al. 2019 (max-sensitivity)
--   average      Mean of the same
--   unflipped    The largest of draws that leave the prediction; null if none does
--   lipschitz    Largest |phi(x + e) - phi(x)| / |e|, 0 or more, in the unit of scores over that of
--                inputs; lower is stabler. Alvarez-Melis & Jaakkola 2018
create macro sensitivity_by_instance_over(all_tokens := false) as table
with moved as (
    select
        d.evaluation,
        d.instance_id,
        d.method,
        d.noise_norm,
        d.prediction <> i.prediction as flip,
        case
            when all_tokens then range(1, len(i.special) + 1)
            else removable_positions(i.special, i.readout)
        end as positions,
        list_select(a.scores, positions)::double[] as phi,
        list_distance(phi, list_select(d.scores, positions)::double[]) as distance,
        distance / nullif(sqrt(list_inner_product(phi, phi)), 0) as ratio
    from noised as d
    join attributions as a using (instance_id, method)
    join instances as i using (instance_id)
    where a.layer is null and isfinite(list_sum(d.scores)) and isfinite(list_sum(a.scores))
        and len(positions) > 0
)

select
    evaluation,
    instance_id,
    method,
    count(*) as draws,
    count(*) filter (flip) as flipped,
    max(ratio) as largest,
    avg(ratio) as average,
    max(ratio) filter (not flip) as unflipped,
    max(distance / nullif(noise_norm, 0)) as lipschitz
from moved
group by evaluation, instance_id, method;

create view sensitivity_by_instance as
from sensitivity_by_instance_over();
