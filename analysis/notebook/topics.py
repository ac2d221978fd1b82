"""What a run's views are about, so that a reader finds the one that answers a question."""

from attribeam.schemas import TABLES, VIEWS
from attribeam.schemas.tables import EVALUATIONS

# By topic: how names of views begin. The first that fits is taken.
_TOPICS = {
    "faithfulness": (
        *("faithfulness", "degradation", "perturbation_auc", "area_under_curve", "cost_faith"),
        *("compared", "inversions", "ranking", "mean_ranks", "datamodeling"),
    ),
    "continuations": ("continuation",),
    "cost": ("cost",),
    "agreement": ("agreement", "consensus", "grad_x_input"),
    "plausibility": (
        *("plausibility", "word_ranks", "pointing", "segmentation", "localisation"),
        *("class_discrimination", "evidence"),
    ),
    "scores": (
        *("tokens", "words", "document", "complexity", "completeness", "quadrature"),
        "layer_tokens",
    ),
    "inside the model": (
        *("mixing", "information", "head", "interaction", "receptive", "attribution_tree"),
        *("trigger", "attack", "pattern", "skip_share", "path_share"),
    ),
    "checks": (
        *("randomisation", "efficient_randomisation", "random_logit", "subset_drops"),
        *("infidelity", "sensitivity", "reliability"),
    ),
    "failures": ("failure",),
}


def views_by_topic() -> dict[str, list[str]]:
    """Names of views by what they are about, and of tables; without macros, which are called."""
    names = [view.name for view in VIEWS if not view.is_macro]
    found: dict[str, list[str]] = {}
    for name in names:
        topic = next((key for key, starts in _TOPICS.items() if name.startswith(starts)), "others")
        found.setdefault(topic, []).append(name)
    return {
        **{topic: found[topic] for topic in (*_TOPICS, "others") if topic in found},
        "tables": [*TABLES, *EVALUATIONS, "methods", "run"],
    }
