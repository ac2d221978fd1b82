-- How information flows through the layers: one row per method, encoder layer, role of tokens, and
-- whether the prediction is right, of the bottleneck methods that were run with --layers.
--
-- After each layer by itself, a bottleneck keeps what the prediction needs and replaces the rest by
-- noise; its bits are an upper bound of what the layer's output says of the input there. With depth
-- they move from the text to the position that is read out (Jiang et al. 2020, layer-wise
-- information flow). After the last layer only that position is looked at, so what is found at the
-- others is what the optimisation had no time to remove. Roles: see `information_tokens`.
--
-- Methods are compared on the same instances; `information_flow_over(common := false)` has each
-- method's own.
--
-- Columns:
--   layer      Encoder layer after which the bottleneck sits, from 0
--   role       readout, special, rationale, punctuation or text
--   correct    prediction = label; null without a label
--   instances  Number of instances that have such tokens
--   tokens     Number of such tokens
--   bits       Mean information per token
--   total      Mean information per instance in all such tokens
--   share      Mean share of the instance's information that is in such tokens
--   left_out   Number of instances that some method has bits of and that are not compared
create macro information_flow_over(common := true, methods := null) as table
with chosen as materialized (
    from compared('information', common, methods)
),

lacking as (
    select method, any_value(total) - count(*) filter (compared) as left_out
    from chosen
    group by method
),

by_instance as (
    select
        instance_id,
        method,
        layer,
        role,
        correct,
        count(*) as tokens,
        sum(bits::double) as bits
    from information_tokens
    semi join (from chosen where compared) as k using (instance_id, method)
    group by all
),

shares as (
    select
        *,
        bits / nullif(sum(bits) over (partition by instance_id, method, layer), 0) as share
    from by_instance
)

select
    method,
    layer,
    role,
    correct,
    count(*) as instances,
    sum(tokens)::bigint as tokens,
    sum(bits) / sum(tokens) as bits,
    avg(bits) as total,
    avg(share) as share,
    left_out
from shares
join lacking using (method)
group by all
order by method, layer, role, correct;

create view information_flow as
from information_flow_over();
