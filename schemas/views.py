"""The SQL views and macros over the tables of a run, one file each in ``schemas/sql``.

A file is a comment followed by one ``create`` statement. The comment is the manual: what a row is,
the formula, the paper it comes from, units, and under ``Columns:`` a sentence for each column that
needs one. The views need nothing but the tables of ``attribeam.schemas.tables`` and ``methods``, so
they work just as well over a published data set.

A view that compares methods has two statements or more: a table macro, which takes what they are
compared on, and the view, which is that macro with its defaults.
"""

import re
from importlib.resources import files
from typing import NamedTuple

# A view follows those that it reads.
_NAMES = (
    "tokens",
    "word_within",
    "words",
    "documents",
    "document_tokens",
    "area_under_curve",
    "compared_curves",
    "compared_points",
    "compared",
    "faithfulness_by_instance",
    "faithfulness",
    "faithfulness_normalised_by_instance",
    "faithfulness_normalised",
    "faithfulness_distributions_by_instance",
    "faithfulness_distributions",
    "degradation",
    "degradation_curves",
    "bootstrap_weights",
    "degradation_intervals",
    "faithfulness_intervals",
    "faithfulness_differences",
    "perturbation_auc",
    "cost",
    "cost_faithfulness",
    "inversions",
    "agreement_by_instance",
    "agreement",
    "agreement_absolute_by_instance",
    "agreement_absolute",
    "centred_ranks",
    "summed_lists",
    "consensus_by_instance",
    "consensus",
    "complexity_by_instance",
    "complexity",
    "ranking",
    "ranking_agreement",
    "mean_ranks",
    "grad_x_input_correlation",
    "span_firsts",
    "span_lasts",
    "matching_spans",
    "word_ranks",
    "word_count",
    "harmonic_mean",
    "plausibility_by_instance",
    "plausibility",
    "plausibility_intervals",
    "document_word_ranks",
    "document_plausibility",
    "pointing_by_instance",
    "pointing",
    "segmentation_by_instance",
    "segmentation",
    "localisation_intervals",
    "class_discrimination",
    "completeness",
    "quadrature",
    "layer_tokens",
    "mixing",
    "information_tokens",
    "information_flow",
    "head_importance",
    "head_agreement",
    "head_agreement_with",
    "interaction_edges",
    "receptive_field",
    "attribution_tree",
    "trigger_candidates",
    "pattern_nodes",
    "pattern_concentration",
    "pattern_consistency",
    "pattern_consistency_accuracy",
    "skip_share",
    "path_share",
    "pattern_ablation_summary",
    "pattern_flow",
    "attack_success",
    "continuations",
    "continuation_sources",
    "continuation_faithfulness_by_instance",
    "continuation_faithfulness",
    "datamodeling_by_instance",
    "datamodeling",
    "evidence_by_instance",
    "evidence",
    "removable_positions",
    "rank_correlation",
    "kendall_tau",
    "agreement_with",
    "faithfulness_with",
    "randomisation_by_instance",
    "randomisation",
    "efficient_randomisation",
    "random_logit",
    "subset_drops",
    "infidelity_by_instance",
    "infidelity",
    "sensitivity_n",
    "sensitivity_by_instance",
    "sensitivity",
    "reliability_by_instance",
    "reliability",
    "failure_summary",
)

# Views and macros that measure nothing, and so have no better and worse: what there is row by row,
# sums and shares that describe, and parts of others. All else says under ``Metrics:`` of its
# comment which values are better and what range they have, and in a paragraph what fools them.
NO_METRICS = frozenset(
    {
        *("tokens", "word_within", "words", "documents", "document_tokens", "word_ranks"),
        *("word_count", "document_word_ranks", "matching_spans", "harmonic_mean"),
        *("span_firsts", "span_lasts"),
        *("area_under_curve", "compared_curves", "compared_points", "compared"),
        *("degradation_curves", "bootstrap_weights", "inversions", "centred_ranks"),
        *("summed_lists", "removable_positions", "rank_correlation", "kendall_tau"),
        *("layer_tokens", "mixing", "information_tokens", "information_flow"),
        *("head_importance", "interaction_edges", "receptive_field", "attribution_tree"),
        *("trigger_candidates", "pattern_nodes", "pattern_consistency", "skip_share"),
        *("pattern_consistency_accuracy", "path_share", "pattern_flow", "continuations"),
        *("continuation_sources", "subset_drops", "failure_summary"),
    }
)

_CREATED = re.compile(r"^create (view|macro) (\w+)(.* as table$)?", re.MULTILINE)
_COLUMN = re.compile(r"^  (\w+)  +(\S.*)$")
_CONTINUED = re.compile(r"^ {6,}(\S.*)$")
_FOOLS = re.compile(r"What\s(?:else\s)?fools\s(?:it|them):\s((?:.|\n)+?)(?=\n\n|$)")
_FOOLS_ELSEWHERE = re.compile(r"fools\s(?:it|them),?\sis\ssaid\sin\s`(\w+)`")


class Created(NamedTuple):
    """What a statement creates: a ``view``, a ``macro`` or a ``macro table``, and its name."""

    kind: str
    name: str


class Metric(NamedTuple):
    """Which values of a metric are better, in words, and what range they have."""

    better: str
    range: str


class View(NamedTuple):
    """A view or a macro: its name, its comment without the dashes, and its SQL."""

    name: str
    comment: str
    sql: str

    @property
    def is_macro(self) -> bool:
        """True if this is a macro, to be called, and False if it is a view, to be selected from."""
        return self.created[-1].kind != "view"

    @property
    def created(self) -> list[Created]:
        """All that the statements create, the view or macro of that name last."""
        return [
            Created(f"{kind} table" if as_table else kind, name)
            for kind, name, as_table in _CREATED.findall(self.sql)
        ]

    @property
    def columns(self) -> dict[str, str]:
        """The sentence of each column that the comment explains under ``Columns:``."""
        return _entries(self.comment.partition("\nColumns:\n")[2])

    @property
    def metrics(self) -> dict[str, Metric]:
        """What the comment says under ``Metrics:`` of each column that is one."""
        manual = self.comment.partition("\nMetrics:\n")[2].partition("\n\n")[0]
        parts = {name: told.partition("; ") for name, told in _entries(manual).items()}
        return {name: Metric(better, reach) for name, (better, _, reach) in parts.items()}

    @property
    def fools(self) -> str:
        """What makes its metrics look better or worse than they are; empty if nothing is said."""
        if said := _FOOLS.search(self.comment):
            return " ".join(said[1].split())
        if found := _FOOLS_ELSEWHERE.search(self.comment):
            return next(view.fools for view in VIEWS if view.name == found[1])
        return ""


def _entries(manual: str) -> dict[str, str]:
    """Names with a sentence each, as a section of a comment has them, that may go on below."""
    sentences: dict[str, str] = {}
    name = ""
    for line in manual.splitlines():
        if found := _COLUMN.match(line):
            name = found[1]
            sentences[name] = found[2]
        elif name and (more := _CONTINUED.match(line)):
            sentences[name] += f" {more[1]}"
    return sentences


def _load(name: str) -> View:
    text = (files("attribeam.schemas") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    comment = "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:start])
    return View(name, comment.strip(), "\n".join(lines[start:]).strip())


VIEWS: tuple[View, ...] = tuple(_load(name) for name in _NAMES)
