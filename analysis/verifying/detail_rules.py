"""Rules on the tables that methods fill beside their scores, each table's own.

What holds in all of them ``attribeam.analysis.verifying.checks`` adds.
"""

from attribeam.analysis.verifying.rules import Check, repeated

LAYERS = (
    Check(
        "layers: {count} have not one number per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        join instances using (instance_id)
        where coalesce(len(local), -1) <> len(input_ids)
            or coalesce(len(rollout), -1) <> len(input_ids)
            or len(coalesce(mixing, rollout)) <> len(input_ids)
        """,
    ),
    Check(
        "layers: {count} have values that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        where not coalesce(isfinite(list_sum(local)) and isfinite(list_sum(rollout)), false)
            or not coalesce(isfinite(scale), false)
            or not isfinite(list_sum(mixing))
            or list_count(local) <> len(local)
            or list_count(rollout) <> len(rollout)
            or list_count(mixing) <> len(mixing)
        """,
    ),
    Check(
        "layers: the rollout of {count} does not sum to 1, such as that of {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        where abs(list_sum(rollout) - 1) > 1e-3
        """,
    ),
    Check(
        "layers: {count} have context-mixing ratios outside 0 to 1, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        where list_min(mixing) < -1e-6 or list_max(mixing) > 1 + 1e-6
        """,
    ),
)

INFORMATION = (
    Check(
        "information: {count} have not one number per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from information
        join instances using (instance_id)
        where coalesce(len(bits), -1) <> len(input_ids)
        """,
    ),
    Check(
        "information: {count} have bits that are no finite numbers from 0, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from information
        where not coalesce(isfinite(list_sum(bits)) and list_min(bits) > -1e-3, false)
            or list_count(bits) <> len(bits)
        """,
    ),
)

HEADS = (
    Check(
        "heads: {count} have not each head once, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from heads
            group by all
            having count(*) <> count(distinct (layer, head))
                or count(*) <> (select max(rows) from detail_keys where name = 'heads')
        )
        """,
    ),
    Check(
        "heads: {count} have values that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from heads
        where not coalesce(
            isfinite(attr_max + attr_sum + attr_positive + attr_negative)
            and isfinite(attention_mean + attention_max + taylor_loss + taylor_logits),
            false
        )
        """,
    ),
    Check(
        "interactions: {count} have lists of different lengths, or pairs outside the text, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from interactions
        join instances using (instance_id)
        where len(query) is distinct from len(key)
            or len(query) is distinct from len(attr)
            or len(query) is distinct from len(prop)
            or list_min(query || key) < 0
            or list_max(query || key) >= len(input_ids)
        """,
    ),
    Check(
        "interactions: {count} have values that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from interactions
        where not coalesce(isfinite(output + without + gap + mass_dropped), false)
            or not isfinite(list_sum(attr)) or list_count(attr) <> len(attr)
            or not isfinite(list_sum(prop)) or list_count(prop) <> len(prop)
        """,
    ),
    Check(
        "interactions: in {count} the heads do not sum to the change of the output, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from interactions
        join (
            select instance_id, method, layer, sum(attr_sum::double) as total
            from heads
            group by all
        ) using (instance_id, method, layer)
        where abs(total - (output - without)) > gap + 1e-4 * (1 + abs(output) + abs(without))
        """,
    ),
    Check(
        "tree_edges: {count} tokens have two parents, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from tree_edges
            join instances using (instance_id)
            where parent is distinct from readout
            group by instance_id, method, algorithm, child
            having count(*) > 1
        )
        """,
    ),
    Check(
        "tree_edges: {count} belong to no tree, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from tree_edges
        anti join (from tree_nodes where depth is not null) as n
            on n.instance_id = tree_edges.instance_id
            and n.method = tree_edges.method
            and n.algorithm = tree_edges.algorithm
            and n.token = tree_edges.child
        """,
    ),
    Check(
        "tree_nodes: {count} have not one row per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from tree_nodes
            join instances using (instance_id)
            group by instance_id, method, algorithm, input_ids
            having count(*) <> len(input_ids) or count(distinct tree_nodes.token) <> len(input_ids)
        )
        """,
    ),
)

PATTERNS = (
    Check(
        "patterns: {count} belong to no attribution, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from patterns
        anti join attributions using (instance_id, method)
        """,
    ),
    repeated("patterns", "level, source"),
    Check(
        "patterns: {count} are no path from their token to the readout, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from patterns
        join instances using (instance_id)
        cross join (select model_num_layers as depth from run)
        where len(nodes) is distinct from depth + 1
            or len(patterns.roles) is distinct from depth + 1
            or nodes[1] is distinct from source
            or nodes[-1] is distinct from readout
            or list_min(nodes) < 0
            or list_max(nodes) >= len(input_ids)
            or (heads is null) is distinct from (level = 'embedding')
            or len(heads) <> depth
        """,
    ),
    Check(
        "patterns: {count} have influences that are no finite numbers, or of another sign than "
        "their token's, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from patterns
        where not coalesce(isfinite(influence + input_influence), false)
            or not isfinite(list_sum(steps)) or list_count(steps) <> len(steps)
            or not coalesce(isfinite(concentration), true)
            or influence * input_influence < 0
        """,
    ),
)

ABLATION = (
    repeated("pattern_ablation", "kind", "kinds "),
    Check(
        "pattern_ablation: {count} outputs are no finite numbers, or not what is correct, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from pattern_ablation
        where not coalesce(isfinite(output), false) or (output > 0) is distinct from correct
        """,
    ),
)
