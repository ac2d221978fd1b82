"""The tables that methods fill beside their scores, for the folder of ``benchmarks.scale_run``.

Their shapes and counts are those that a model of 12 layers of 12 heads leaves: lists per token and
layer, up to 64 interactions a layer, trees of some 20 edges, a path through all layers for each
token at both levels. Values are random. Instances have words of known roles, and are in one of ten
subsets, as the templates of a corpus of grammatical contrasts are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribeam.schemas import Unit

LAYERS, HEADS = 12, 12
DETAILS = {
    "globenc": ("layers",),
    "attention_rollout": ("layers",),
    "iba": ("information",),
    "influence": ("patterns",),
    "attattr": ("heads", "interactions", "tree_edges", "tree_nodes"),
    "pattern_ablation": ("pattern_ablation",),
}
MIXING = "globenc"  # Norm-based, unlike the other method by layer.
SUBSETS = tuple(f"subset_{letter}" for letter in "abcdefghij")
# Of a token: a special one's own string, or the role of its word, or unknown (-1).
ROLES = ("[CLS]", "[SEP]", "determiner", "subject", "relative", "object", "verb", "adverb")
SPECIALS = 2
MOST_INTERACTIONS = 64
TREE_EDGES = (5, 40)  # Fewest and most, where the text is that long.
STAYS = 0.7
KINDS = (
    "whole",
    "nothing",
    "embedding",
    "attention",
    "attention_no_skip",
    "random",
    "attention_greedy",
    "attention_beam",
    "attention_viterbi",
    "attention_rollout",
    "conductance",
    "internal_influence",
)
TRIGGERS = 100

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Columns = dict[str, Any]


@dataclass(frozen=True)
class Texts:
    """The N instances of a shard that have details.

    Attributes:
        ids: Their ids, [N].
        lengths: Their numbers of tokens T, special ones included, [N].
        roles: Index into ``ROLES`` of each token, or -1; all instances in a row, [sum of T].
        subsets: Index into ``SUBSETS``, [N].
    """

    ids: pa.Array
    lengths: Ints
    roles: Ints
    subsets: Ints

    def repeated(self, times: int | Ints, method: str) -> Columns:
        """The columns that say whose a row is, with so many rows for each instance."""
        rows = np.repeat(np.arange(len(self.ids)), times)
        return {"instance_id": self.ids.take(pa.array(rows)), "method": method, "target": rows * 0}


def lists(lengths: Ints, values: Any, missing: NDArray[np.bool_] | None = None) -> pa.ListArray:
    """Cuts values into lists of given lengths; those that are missing, of length 0, are null."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    mask = None if missing is None else pa.array(missing)
    return pa.ListArray.from_arrays(offsets, pa.array(values), mask=mask)


def texts_of(ids: pa.Array, word_ids: pa.ListArray, numbers: Ints) -> Texts:
    """Gives roles and a subset to instances, as their words and numbers have it."""
    lengths = word_ids.value_lengths().to_numpy().astype(np.int64)
    words = word_ids.flatten().fill_null(-1).to_numpy()
    subsets = numbers % len(SUBSETS)
    kinds = len(ROLES) - SPECIALS
    # Each subset has an order of roles of its own; what follows in a sentence has none.
    roles = SPECIALS + (words + np.repeat(subsets, lengths)) % kinds
    roles = np.where(words < kinds, roles, -1)
    roles[words < 0] = np.tile([0, 1], len(ids))
    return Texts(ids, lengths, roles, subsets)


def annotations(texts: Texts, chosen: NDArray[np.bool_]) -> Columns:
    """The columns of ``instances`` for all instances of a shard, of which those are chosen."""
    lengths, subsets = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64)
    lengths[chosen], subsets[chosen] = texts.lengths, texts.subsets
    words = np.where(texts.roles < SPECIALS, -1, texts.roles)
    return {
        "roles": lists(lengths, _taken(ROLES, words), ~chosen),
        "subset": _taken(SUBSETS, np.where(chosen, subsets, -1)),
    }


def details(rng: np.random.Generator, texts: Texts) -> Iterator[tuple[Unit, Columns]]:
    """Yields the rows of each table and method of ``DETAILS``."""
    edges, nodes = _trees(rng, texts)
    made = {"tree_edges": edges, "tree_nodes": nodes}
    makers = {
        "layers": _layers,
        "information": _information,
        "heads": _heads,
        "interactions": _interactions,
        "patterns": _patterns,
        "pattern_ablation": _ablations,
    }
    for method, tables in DETAILS.items():
        for table in tables:
            columns = made.get(table) or makers[table](rng, texts, method)
            yield Unit(table, method), columns


def attacks(rng: np.random.Generator) -> Columns:
    """The rows of one evaluation of triggers, for two gold classes."""
    rows = 2 * TRIGGERS
    before = rng.integers(300, 400, rows)
    flipped = rng.integers(0, 200, rows)
    return {
        "evaluation": "attattr-0123456789ab",
        "method": "attattr",
        "corpus": "corpus",
        "rank": np.repeat(np.arange(1, TRIGGERS + 1), 2),
        "source_id": [f"row-{number:08d}" for number in np.repeat(np.arange(TRIGGERS), 2)],
        "explained": np.repeat(np.arange(TRIGGERS) % 2, 2),
        "tokens": lists(np.full(rows, 3), [f"{n:04d}" for n in rng.integers(5000, size=3 * rows)]),
        "segment": lists(np.full(rows, 3), np.zeros(3 * rows, np.int8)),
        "relative": lists(np.full(rows, 3), np.tile([0.2, 0.5, 0.9], rows)),
        "score": np.repeat(np.sort(rng.random(TRIGGERS))[::-1], 2),
        "gold": np.tile([0, 1], TRIGGERS),
        "n": np.full(rows, 400),
        "skipped": np.zeros(rows, np.int64),
        "correct_before": before,
        "correct_after": before - flipped,
        "flipped": flipped,
    }


def _taken(names: tuple[str, ...], places: Ints) -> pa.Array:
    return pa.array(names).take(pa.array(places, mask=places < 0))


def _below(rng: np.random.Generator, limits: Ints) -> Ints:
    """A number from 0 to below each limit."""
    return (rng.random(len(limits)) * limits).astype(np.int64)


def _layers(rng: np.random.Generator, texts: Texts, method: str) -> Columns:
    lengths = np.repeat(texts.lengths, LAYERS)
    total = int(lengths.sum())
    flow = rng.gamma(1.0, size=total)
    flow /= np.repeat(np.add.reduceat(flow, np.cumsum(lengths) - lengths), lengths)
    return texts.repeated(LAYERS, method) | {
        "layer": np.tile(np.arange(LAYERS), len(texts.ids)),
        "local": lists(lengths, rng.standard_normal(total)),
        "rollout": lists(lengths, flow),
        "scale": rng.standard_normal(len(lengths)),
        "mixing": lists(lengths, rng.random(total)) if method == MIXING else None,
    }


def _information(rng: np.random.Generator, texts: Texts, method: str) -> Columns:
    lengths = np.repeat(texts.lengths, LAYERS)
    return texts.repeated(LAYERS, method) | {
        "layer": np.tile(np.arange(LAYERS), len(texts.ids)),
        "bits": lists(lengths, rng.gamma(1.0, size=int(lengths.sum()))),
    }


def _heads(rng: np.random.Generator, texts: Texts, method: str) -> Columns:
    number = LAYERS * HEADS
    rows = number * len(texts.ids)
    limits = np.repeat(texts.lengths, number)
    # Some heads matter more than others, in all instances.
    strength = np.tile(np.random.default_rng(1).gamma(1.0, 0.02, size=number), len(texts.ids))
    largest = strength * rng.gamma(2.0, 0.5, size=rows)
    positive = largest * (1 + rng.random(rows))
    negative = -largest * rng.random(rows)
    attention = rng.uniform(0.2, 1.0, size=rows)
    return texts.repeated(number, method) | {
        "layer": np.tile(np.repeat(np.arange(LAYERS), HEADS), len(texts.ids)),
        "head": np.tile(np.arange(HEADS), LAYERS * len(texts.ids)),
        "attr_max": largest,
        "attr_sum": positive + negative,
        "attr_positive": positive,
        "attr_negative": negative,
        "attention_mean": attention * rng.random(rows),
        "attention_max": attention,
        "top1_from": _below(rng, limits),
        "top1_to": _below(rng, limits),
        "top1": largest,
        "top2_from": _below(rng, limits),
        "top2_to": _below(rng, limits),
        "top2": largest * rng.random(rows),
        "taylor_loss": rng.gamma(1.0, size=rows),
        "taylor_logits": rng.gamma(1.0, size=rows),
    }


def _interactions(rng: np.random.Generator, texts: Texts, method: str) -> Columns:
    rows = LAYERS * len(texts.ids)
    layer = np.tile(np.arange(LAYERS), len(texts.ids))
    own = np.repeat(texts.lengths, LAYERS)
    # Of the last layer, the whole row of the position read out is kept.
    last = layer == LAYERS - 1
    counts = np.where(last, own, rng.integers(1, MOST_INTERACTIONS + 1, size=rows))
    limits = np.repeat(own, counts)
    shares = rng.uniform(0.1, 1.0, size=len(limits))
    shares = shares[np.lexsort((-shares, np.repeat(np.arange(rows), counts)))]
    largest = rng.gamma(2.0, 0.05, size=rows)
    return texts.repeated(LAYERS, method) | {
        "layer": layer,
        "output": rng.random(rows),
        "without": rng.random(rows),
        "steps": np.full(rows, 10),
        "gap": rng.random(rows) / 100,
        "query": lists(counts, np.where(np.repeat(last, counts), 0, _below(rng, limits))),
        "key": lists(counts, _below(rng, limits)),
        "attr": lists(counts, shares * np.repeat(largest, counts)),
        "prop": lists(counts, shares),
        "dropped": own**2 - np.minimum(counts, own**2),
        "mass_dropped": rng.random(rows),
    }


def _trees(rng: np.random.Generator, texts: Texts) -> tuple[Columns, Columns]:
    """The same tree for both algorithms, of which the second adds the edges of the readout."""
    (method,) = (name for name, tables in DETAILS.items() if "tree_edges" in tables)
    made = [_tree(rng, int(length)) for length in texts.lengths]
    edges = np.concatenate([edges for edges, _ in made])
    nodes = np.concatenate([nodes for _, nodes in made])
    paper, position, parent, child, layer = edges.T
    paper_too, token, state, depth = nodes.T
    algorithms = ("code", "paper")
    counts = np.array([len(edges) for edges, _ in made])
    return (
        texts.repeated(counts, method)
        | {
            "algorithm": _taken(algorithms, paper),
            "position": position,
            "parent": parent,
            "child": child,
            "layer": layer,
            "attr": rng.gamma(2.0, 0.05, size=len(edges)),
            "prop": rng.uniform(0.4, 1.0, size=len(edges)),
        },
        texts.repeated(2 * texts.lengths, method)
        | {
            "algorithm": _taken(algorithms, paper_too),
            "token": token,
            "state": state,
            "is_root": depth == 0,
            "depth": pa.array(depth, mask=depth < 0),
            "top_score": np.where(depth == 0, 10.0, rng.uniform(0, 10, size=len(nodes))),
        },
    )


def _tree(rng: np.random.Generator, length: int) -> tuple[Ints, Ints]:
    """Edges (algorithm, position, parent, child, layer) and nodes (algorithm, token, state, depth).

    Tokens are added below random ones before them, from the last layer but one down.
    """
    fewest, most = TREE_EDGES
    size = min(length - 1, 1 + int(rng.integers(fewest, most + 1)))
    tokens = 1 + rng.permutation(length - 1)[:size]
    parents = _below(rng, np.arange(1, size))
    depths = np.zeros(size, np.int64)
    for child, parent in enumerate(parents, 1):
        depths[child] = depths[parent] + 1
    layers = np.sort(rng.integers(LAYERS - 1, size=size - 1))[::-1]
    links = np.stack([tokens[parents], tokens[1:], layers], 1)
    end = np.stack([0 * tokens, np.sort(tokens), 0 * tokens + LAYERS - 1], 1)
    nodes = np.stack([np.arange(length), np.full(length, -1), np.full(length, -1)], 1)
    nodes[tokens, 1:] = np.stack([np.isin(np.arange(size), parents), depths], 1)
    edges = [np.insert(links, 0, np.arange(len(links))[None], 1)]
    both = np.concatenate([links, end])
    edges.append(np.insert(both, 0, np.arange(len(both))[None], 1))
    return (
        np.concatenate([np.insert(own, 0, number, 1) for number, own in enumerate(edges)]),
        np.concatenate([np.insert(nodes, 0, number, 1) for number in range(2)]),
    )


def _patterns(rng: np.random.Generator, texts: Texts, method: str) -> Columns:
    """Two rows a token: its path of the embedding level, and with heads and skips between."""
    words = int(texts.lengths.sum())
    limits = np.repeat(texts.lengths, texts.lengths)
    starts = np.repeat(np.cumsum(texts.lengths) - texts.lengths, texts.lengths)
    nodes = np.empty((words, LAYERS + 1), np.int64)
    nodes[:, 0] = np.arange(words) - starts
    for layer in range(1, LAYERS):
        # What moves goes to the readout more often than elsewhere.
        moved = np.where(rng.random(words) < 0.7, 0, _below(rng, limits))
        nodes[:, layer] = np.where(rng.random(words) < STAYS, nodes[:, layer - 1], moved)
    nodes[:, LAYERS] = 0
    stays = nodes[:, 1:] == nodes[:, :-1]
    heads = rng.integers(HEADS, size=stays.shape)
    heads[stays & (rng.random(stays.shape) < 0.5)] = -1
    roles = np.repeat(texts.roles[nodes + starts[:, None]], 2, axis=0)
    rows, levels = 2 * words, np.tile([0, 1], words)
    whole = np.repeat(rng.standard_normal(words), 2)
    counts = np.tile([LAYERS - 1, LAYERS], words)
    # A pattern has the sign of its token's influence.
    signs = np.repeat(np.sign(whole), counts)
    steps = np.abs(rng.standard_normal(len(signs))) * signs
    influence = steps[np.cumsum(counts) - 1]
    every = np.full(rows, LAYERS + 1)
    return texts.repeated(2 * texts.lengths, method) | {
        "level": _taken(("embedding", "attention"), levels),
        "source": np.repeat(nodes[:, 0], 2),
        "nodes": lists(every, np.repeat(nodes, 2, axis=0).ravel()),
        "roles": lists(every, _taken(ROLES, roles.ravel())),
        "heads": lists(levels * LAYERS, heads.ravel(), levels == 0),
        "steps": lists(counts, steps),
        "influence": influence,
        "input_influence": whole,
        "concentration": influence / whole,
    }


def _ablations(rng: np.random.Generator, texts: Texts, method: str) -> Columns:
    rows = len(KINDS) * len(texts.ids)
    kinds = np.tile(np.arange(len(KINDS)), len(texts.ids))
    most = LAYERS * np.repeat(texts.lengths, len(KINDS)) + 1
    unbounded = ~np.isin(kinds, [KINDS.index(kind) for kind in ("attention", "attention_no_skip")])
    output = rng.normal(1.0, 2.0, size=rows)
    return texts.repeated(len(KINDS), method) | {
        "kind": _taken(KINDS, kinds),
        "nodes_kept": np.where(kinds == 0, most, _below(rng, most)),
        "heads_kept": pa.array(_below(rng, most), mask=unbounded),
        "skips_kept": pa.array(_below(rng, most), mask=unbounded),
        "output": output,
        "correct": output > 0,
    }
