"""What five papers claim that a run's tables can judge, and the comparisons that judge it.

Papers' numbers are given where they were found, with their source where that isn't the paper.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from attribeam.analysis.evidence import statements

_ROLLOUTS = ("w_fixed_res", "attention_rollout")
_OVER_ATTENTION = (
    *("attention_greedy", "attention_beam", "attention_viterbi", "attention_rollout"),
    *("internal_influence", "conductance", "random"),
)


class Seen(NamedTuple):
    """What of a run decides on which comparisons there can be.

    Attributes:
        params: Parameters of each method.
        operations: Operations of its curves.
        kinds: Kinds of ablated patterns.
        importances: Importances that heads were pruned by.
        tables: Names of tables that have rows.
        layers: Methods that have bits by layer.
        subsets: Number of subsets of the instances that have heads.
        other: Name of another run that has heads; None without one.
        pictures: Whether instances are pictures.
        target: Which class the run explains.
        chance: Of the tables pruning and attacks those whose model is right no more than by chance.
    """

    params: Mapping[str, Mapping[str, Any]]
    operations: tuple[str, ...]
    kinds: frozenset[str]
    importances: frozenset[str]
    tables: frozenset[str]
    layers: frozenset[str]
    subsets: int
    other: str | None
    pictures: bool
    target: str
    chance: frozenset[str] = frozenset()

    def operation(self, *wanted: str) -> str | None:
        """The first of those that the curves have, else any."""
        return next((o for o in (*wanted, *self.operations) if o in self.operations), None)


class Comparison(NamedTuple):
    """A number that a claim says is above 0, or with ``below`` is below it.

    Attributes:
        name: What is compared.
        sql: Its query: n, value, low and high.
        least: The fewest things, texts mostly, that it can be judged by.
        of: What these are called.
        below: Whether the claim says that it is below 0.
    """

    name: str
    sql: str
    least: int = 20
    of: str = "texts"
    below: bool = False


_AT_CHANCE = (
    "the model is right on the evaluation corpus no more than by chance, so that there is nothing "
    "to lose: take a corpus of what it was trained for"
)


class Lacking(NamedTuple):
    """Why a claim can't be judged, and what would let it be."""

    reason: str


class Claim(NamedTuple):
    """A paper's claim.

    Attributes:
        key: What it is called in addresses.
        paper: As it is cited.
        text: What is claimed.
        theirs: The paper's own number, and of what; empty where it isn't known to us.
        measure: What is compared, and in what unit.
        compared: From what a run has to the comparisons, or why there are none.
        differs: What is another thing here than in the paper, beside model and corpus.
    """

    key: str
    paper: str
    text: str
    theirs: str
    measure: str
    compared: Callable[[Seen], list[Comparison] | Lacking]
    differs: Callable[[Seen], list[str]]


def _ahead(method: str, others: tuple[str, ...], *operations: str) -> Any:
    """A method's area between the curves against those of others."""

    def compared(seen: Seen) -> list[Comparison] | Lacking:
        there = [other for other in others if other in seen.params]
        if method not in seen.params or not there:
            return _not_run([method, *others], seen)
        operation = seen.operation(*operations)
        if operation is None:
            return Lacking("the run has no curves: leave --no-evaluate out")
        return [
            Comparison(
                f"{method} less {other}, {operation}",
                statements.area_ahead(method, other, operation),
            )
            for other in there
        ]

    return compared


def _not_run(methods: list[str], seen: Seen) -> Lacking:
    lacking = [name for name in methods if name not in seen.params]
    return Lacking(f"needs methods that the run doesn't have: --methods {','.join(lacking)}")


def _left_out(methods: tuple[str, ...]) -> Callable[[Seen], list[str]]:
    """Which of a paper's methods are not compared."""

    def differs(seen: Seen) -> list[str]:
        lacking = [name for name in methods if name not in seen.params]
        return [f"not run here: {', '.join(lacking)}"] if lacking else []

    return differs


def _degradation_differs(seen: Seen) -> list[str]:
    said = ["areas are not normalised by the corpus's mean probabilities, as the paper's are"]
    if seen.target != "gold":
        said.append(f"the {seen.target} class is explained; theirs are all classes of a text")
    if seen.operation("delete") != "delete":
        said.append("no curves by deletion, which theirs are by")
    return said + _left_out(("integrated_gradients", "lime"))(seen)


def _flow(seen: Seen) -> list[Comparison] | Lacking:
    found = sorted(name for name in seen.layers if name == "iba")
    if not found:
        return Lacking("needs bits by layer: --methods iba --layers")
    return [
        Comparison("iba, share after the last layer less after the first", statements.gathered(m))
        for m in found
    ]


def _globenc(others: tuple[str, ...], *methods: str) -> Any:
    def compared(seen: Seen) -> list[Comparison] | Lacking:
        pairs = [(m, o) for m in methods for o in others if m in seen.params and o in seen.params]
        if not pairs or "grad_x_input" not in seen.params:
            return _not_run(["grad_x_input", *methods, *others], seen)
        return [
            Comparison(f"{method} less {other}", statements.nearer_gradient(method, other))
            for method, other in pairs
        ]

    return compared


def _globenc_differs(*methods: str) -> Callable[[Seen], list[str]]:
    def differs(seen: Seen) -> list[str]:
        said = _left_out(methods)(seen)
        reduce = seen.params.get("grad_x_input", {}).get("reduce")
        if reduce not in (None, "norm"):
            said.append(
                f"gradient x input is reduced by {reduce}, theirs by its norm "
                "(--set grad_x_input.reduce=norm)"
            )
        if seen.target != "gold":
            said.append(f"the {seen.target} class is explained, theirs the gold one")
        return said

    return differs


def _pruned(seen: Seen) -> list[Comparison] | Lacking:
    others = [name for name in ("attention", "taylor_loss", "random") if name in seen.importances]
    if "attattr" not in seen.importances or not others:
        return Lacking("needs `attribeam prune` on a run that has attattr")
    if "pruning" in seen.chance:
        return Lacking(_AT_CHANCE)
    return [
        Comparison(
            f"attattr less {other}, area under accuracy", statements.pruned_longer("attattr", other)
        )
        for other in others
    ]


def _heads(seen: Seen) -> list[Comparison] | Lacking:
    if "heads" not in seen.tables:
        return Lacking("needs the method attattr")
    if seen.other is None and seen.subsets < 2:
        return Lacking(
            "needs a second run with attattr, of the same model on another corpus: "
            "attribeam report RUN OTHER --reproduce; or a corpus with subsets"
        )
    what = f"with {seen.other}" if seen.other else "the two subsets that agree least"
    return [
        Comparison(
            f"Spearman over heads, {what}",
            statements.same_heads("attattr", seen.other),
            least=10,
            of="heads",
        )
    ]


def _attacked(seen: Seen) -> list[Comparison] | Lacking:
    if "attacks" not in seen.tables:
        return Lacking("needs `attribeam attack` on a run that has attattr")
    if "attacks" in seen.chance:
        return Lacking(_AT_CHANCE)
    return [Comparison("accuracy before less after", statements.attacked("attattr"))]


def _patterns(statement: Callable[[str], str], name: str) -> Any:
    def compared(seen: Seen) -> list[Comparison] | Lacking:
        if "patterns" not in seen.tables:
            return Lacking("needs the method influence")
        return [Comparison(name, statement("influence"))]

    return compared


def _ablated(seen: Seen) -> list[Comparison] | Lacking:
    others = [kind for kind in _OVER_ATTENTION if kind in seen.kinds]
    if "embedding" not in seen.kinds or not others:
        return Lacking("needs the methods influence and pattern_ablation")
    return [
        Comparison(f"embedding less {other}", statements.kept_right("embedding", other))
        for other in others
    ]


def _consistent(seen: Seen) -> list[Comparison] | Lacking:
    if "patterns" not in seen.tables:
        return Lacking("needs the method influence")
    return [
        Comparison(
            f"{level} level",
            statements.consistent("influence", level),
            least=6,
            of="groups",
            below=True,
        )
        for level in ("embedding", "attention")
    ]


def _segmented(seen: Seen) -> list[Comparison] | Lacking:
    if "localisation" not in seen.tables:
        return Lacking("needs pictures with masks")
    others = [m for m in ("transformer_attribution", "generic_attribution") if m in seen.params]
    if "bt_token" not in seen.params or not others:
        return _not_run(["bt_token", "transformer_attribution"], seen)
    return [
        Comparison(
            f"bt_token less {other}", statements.segments_better("bt_token", other), of="pictures"
        )
        for other in others
    ]


def _nothing(_: Seen) -> list[str]:
    return []


_SECONDARY = "(from a summary of the paper, not from the paper itself)"
_AREA = "LeRF less MoRF area of the explained class's probability"
_NORMS = ("norm_n", "norm_n_res", "w", "w_res", *_ROLLOUTS)
_BT_OTHERS = ("generic_attribution", "attention_rollout")

CLAIMS = (
    Claim(
        "iba-degradation",
        "Jiang et al. 2020",
        "IBA does better in the degradation test than integrated gradients and LIME.",
        "",
        _AREA,
        _ahead("iba", ("integrated_gradients", "lime"), "delete"),
        _degradation_differs,
    ),
    Claim(
        "iba-flow",
        "Jiang et al. 2020",
        "With depth, information gathers at the position that is read out.",
        "",
        "Share of an instance's bits that is at the position read out",
        _flow,
        _nothing,
    ),
    Claim(
        "globenc-highest",
        "Modarressi et al. 2022",
        "GlobEnc correlates more with gradient x input than other ways to put attention together.",
        "BERT-base on SST-2: GlobEnc .77, N_Res .73, N .44, W_Res .19, W -.11, W_FixedRes -.24",
        "Spearman's correlation with gradient x input over all tokens of a text",
        _globenc(_NORMS, "globenc"),
        _globenc_differs("globenc", *_NORMS),
    ),
    Claim(
        "globenc-second-norm",
        "Modarressi et al. 2022",
        "The first layer norm alone makes it worse (N_ResLN), and the second repairs that.",
        "BERT-base on SST-2: N_ResLN -.21, N_Res .73, GlobEnc .77",
        "Spearman's correlation with gradient x input over all tokens of a text",
        _globenc(("norm_n_resln",), "norm_n_res", "globenc"),
        _globenc_differs("norm_n_res", "norm_n_resln", "globenc"),
    ),
    Claim(
        "attattr-pruning",
        "Hao et al. 2021",
        "Heads of little attribution can be pruned: accuracy lasts longer than by other orders.",
        "",
        "Area under the accuracy over the share of heads pruned, 0 to 1",
        _pruned,
        _nothing,
    ),
    Claim(
        "attattr-heads",
        "Hao et al. 2021",
        "The same heads matter to like tasks.",
        "",
        "Correlation of the heads' mean largest attribution",
        _heads,
        _nothing,
    ),
    Claim(
        "attattr-triggers",
        "Hao et al. 2021",
        "The strongest pair of tokens of a text, put into others, turns the model against their "
        "class.",
        "MNLI, entailment: accuracy .829 to .008 (from a summary of the paper)",
        "Accuracy that the strongest trigger takes from classes that it doesn't speak for",
        _attacked,
        _nothing,
    ),
    Claim(
        "influence-skips",
        "Lu et al. 2021",
        "A significant part of the flow passes attention by the skip connections.",
        "",
        "Share of skips among edges that stay at their position, less an even share of one in "
        "heads + 1",
        _patterns(statements.skips, "skips less an even share"),
        lambda _: ["what is significant isn't said by a number in what we read; the bound is ours"],
    ),
    Claim(
        "influence-ablation",
        "Lu et al. 2021",
        "Patterns keep far more of the model's accuracy than paths over attention or layers do.",
        "",
        "Accuracy with nothing but the kept nodes",
        _ablated,
        _nothing,
    ),
    Claim(
        "influence-consistency",
        "Lu et al. 2021",
        "Where patterns are consistent over instances, the model is right.",
        "",
        "Correlation of the entropy of a word's patterns with accuracy: below 0",
        _consistent,
        lambda _: ["groups of one subset share its accuracy, and aren't independent"],
    ),
    Claim(
        "bt-token",
        "Chen et al. 2023",
        "BT-T does better under perturbation than generic attribution and rollout.",
        "ViT-B on ImageNet, negative less positive area: BT-T .421, generic attribution .280, "
        f"rollout .334 {_SECONDARY}",
        _AREA,
        _ahead("bt_token", _BT_OTHERS, "mask", "black", "mean"),
        _left_out(("bt_token", *_BT_OTHERS)),
    ),
    Claim(
        "bt-head",
        "Chen et al. 2023",
        "BT-H does so too.",
        "ViT-B on ImageNet, negative less positive area: BT-H .412, generic attribution .280, "
        f"rollout .334 {_SECONDARY}",
        _AREA,
        _ahead("bt_head", _BT_OTHERS, "mask", "black", "mean"),
        _left_out(("bt_head", *_BT_OTHERS)),
    ),
    Claim(
        "bt-segmentation",
        "Chen et al. 2023",
        "BT-T finds what masks show better than transformer attribution does.",
        f"ViT-B on ImageNet-Segmentation, mIoU: BT-T .663, transformer attribution .619 "
        f"{_SECONDARY}",
        "Mean IoU of what is found and of what is not, picture by picture",
        _segmented,
        lambda _: ["IoU is a mean over pictures; theirs is of the pixels of all together"],
    ),
)
