"""Which output is explained, and which scalar of it.

A classifier is explained by a scalar of the target class: its logit unless another one is asked
for. A masked LM is explained by a contrast, the logit of the target word minus the other's (target
0 is the correct word, 1 the wrong one); a label by its logit, and a regression by its value.
A causal LM is explained by a contrast too: the logit of the token that follows minus that of its
foil, or of the runner-up. What adds to all logits alike cancels in it, it is a sum of logits, and
its gradient doesn't vanish where the model is certain.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.network.model import VALUES, Model, Task

# ``log_prob`` and ``probability`` are of the softmax (of a label, of the sigmoid). ``contrast`` is
# the logit less that of the runner-up, the same class whatever becomes of the input (of a masked
# LM, of its other word); ``margin`` is the logit less the largest of all others.
# ``span`` is the log-probability of all that follows a prompt.
Scalar = Literal["logit", "log_prob", "probability", "contrast", "margin", "value", "span"]
# A method's own choice: the scalar that is explained, or the probability of its class.
Output = Literal["logit", "probability"]

# What is explained unless another scalar is asked for, and what else there is.
_SCALARS: dict[Task, tuple[Scalar, ...]] = {
    "classification": ("logit", "log_prob", "probability", "contrast", "margin"),
    "token_classification": ("logit", "log_prob", "probability", "contrast", "margin"),
    "masked_lm": ("contrast", "logit", "log_prob", "probability"),
    "causal_lm": ("contrast", "logit", "log_prob", "probability"),
    "continuation": ("span",),
    "multi_label": ("logit", "log_prob", "probability"),
    "regression": ("value",),
    "span": ("value",),
    "similarity": ("value",),
}
# Scalars that are weighted sums of logits.
LINEAR: tuple[Scalar, ...] = ("logit", "contrast", "value")
# Tasks whose outputs are asked for one by one.
SEVERAL: tuple[Task, ...] = ("multi_label", "causal_lm", *VALUES)
_RULES = ("auto", "predicted", "gold", "runner_up", "each", "objects")
# The class that each instance brings along (``Instance.own_target``): nobody's rule, but that of
# another model, or of the same before its weights were changed. No class can be called so.
GIVEN = "\0given"
# What it is called in what is stored of a run.
GIVEN_RULE = "given"


def parse_explain(explain: str, model: Model) -> Scalar:
    """Checks ``--explain``: ``auto``, or the scalar that is explained.

    Raises:
        UsageError: If there is none such, or a model of this kind has none.
    """
    known = _SCALARS[model.task]
    if explain == "auto":
        return known[0]
    for scalar in known:
        if scalar == explain:
            return scalar
    every = ", ".join(get_args(Scalar))
    if explain not in get_args(Scalar):
        raise UsageError(f"--explain {explain!r} is neither auto nor one of {every}")
    raise UsageError(
        f"--explain {explain}: a {model.task} model is explained by {', '.join(known)}"
    )


def parse_target(target: str, model: Model) -> str | int:
    """Checks ``--target``: a rule, or the number or the name of a class.

    The rules are ``predicted``, ``gold``, ``runner_up`` (the class of the second largest logit) and
    ``each``, a question for each label or value, or ``objects``, one for each class that the masks
    of a picture are of. ``auto`` is the predicted class for a classifier,
    the correct word for a masked LM, and each label or value of models that have several.

    Returns:
        The rule, or the number of a class, a label or a value.

    Raises:
        UsageError: If it is none of these, or the model has no such class.
    """
    if model.task == "causal_lm":
        return _token_of(target)
    several = model.task in SEVERAL
    if target == "auto":
        return "each" if several else "gold" if model.task == "masked_lm" else "predicted"
    if target == GIVEN:
        return target
    if target in _RULES:
        if several != (target == "each"):
            kinds = "each, a number or a name" if several else "predicted, gold, runner_up, a class"
            raise UsageError(f"--target {target}: of a {model.task} model there is {kinds}")
        if target == "objects" and model.modality != "images":
            raise UsageError("--target objects: what is masked are things in pictures")
        if target == "gold" and model.task == "token_classification":
            raise UsageError("--target gold: words have no labels here; there is predicted")
        return target
    names = model.output_names if several else model.labels
    number = _number(target, names)
    if number is not None:
        return number
    known = f"0 to {len(names) - 1} ({', '.join(names)})"
    if re.fullmatch(r"[+-]?\d+", target):
        raise UsageError(f"--target {target}: the model has classes {known}")
    raise UsageError(
        f"--target {target} is neither {', '.join(_RULES)} nor one of the model's classes: {known}"
    )


def _token_of(target: str) -> str | int:
    """The rule for a language model: tokens that follow, all of them at once, or both."""
    if target in ("auto", "each"):
        return "each"
    if target in ("tokens", "all"):
        return target
    if not re.fullmatch(r"\d{1,9}", target):
        raise UsageError(
            f"--target {target}: of a language model there is each (each token that follows, and "
            "all of them at once), tokens, all, or the number of a token, from 0"
        )
    return int(target)


def _number(target: str, names: Sequence[str]) -> int | None:
    """The class that a number or a name is: names win, and those of the same case before others."""
    folded = [name.casefold() for name in names]
    for among, wanted in ((names, target), (folded, target.casefold())):
        if among.count(wanted) == 1:
            return among.index(wanted)
    try:
        number = int(target)
    except ValueError:
        return None
    return number if 0 <= number < len(names) else None


def targets_of(
    target: str | int, logits: torch.Tensor, instances: Sequence[Instance]
) -> torch.Tensor:
    """Class to explain per instance, [B]: its predicted or gold class, or the one given.

    An instance that asks for an output of its own (``Instance.asked``) is explained by that.

    Args:
        target: As ``parse_target`` returns it.
        logits: [B, C].
        instances: B instances; with ``gold`` each has a label (encoding sees to that).
    """
    asked = instances[0].asked
    if asked is not None or target == "each":
        # What it is compared with, if there is anything, comes before it; a word's comes after it.
        last = 0 if asked is None or instances[0].words else len(asked) - 1
        return torch.full((len(instances),), last, device=logits.device)
    if target == "predicted":
        return logits.argmax(dim=-1)
    if target == "gold":
        return torch.tensor([instance.label for instance in instances], device=logits.device)
    if target in ("objects", GIVEN):
        return torch.tensor([instance.own_target for instance in instances], device=logits.device)
    if target == "runner_up":
        return runner_up(logits, logits.argmax(dim=-1))
    return torch.full((len(instances),), int(target), device=logits.device)


def runner_up(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The class of the largest logit but that of a target, [B]."""
    return _others(logits, targets).argmax(-1)


def runner_up_of(logits: NDArray[np.floating[Any]], target: int) -> int:
    """The same of one instance's logits, [C]."""
    return int(runner_up(torch.from_numpy(logits)[None], torch.tensor([target])))


def _others(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Logits, [N, C], with nothing where the target is."""
    chosen = functional.one_hot(targets, logits.shape[-1]).bool()
    return logits.masked_fill(chosen, -torch.inf)


@dataclass(frozen=True, eq=False)
class Explained:
    """What is explained of N rows.

    Attributes:
        scalar: Which scalar.
        targets: Of which output, [N].
        foils: What that is compared with, if it is with one, [N].
    """

    scalar: Scalar
    targets: torch.Tensor
    foils: torch.Tensor | None = None

    @classmethod
    def of(
        cls, scalar: Scalar, target: str | int, logits: torch.Tensor, instances: Sequence[Instance]
    ) -> "Explained":
        """What is explained of instances whose logits, [B, C], are known."""
        targets = targets_of(target, logits, instances)
        compared = scalar == "contrast" or (scalar == "logit" and _of_label(instances))
        if compared and instances[0].continuation is not None:
            # Asked for beside the target, whatever becomes of the input.
            return cls(scalar, targets, torch.ones_like(targets))
        return cls(scalar, targets, runner_up(logits, targets) if compared else None)

    def repeated(self, times: int) -> "Explained":
        """The same of so many copies of the rows, one after the other."""
        foils = None if self.foils is None else self.foils.repeat(times)
        return Explained(self.scalar, self.targets.repeat(times), foils)

    def chosen(self, numbers: torch.Tensor) -> "Explained":
        """The same of some of the rows, by their numbers."""
        foils = None if self.foils is None else self.foils[numbers]
        return Explained(self.scalar, self.targets[numbers], foils)

    def weights(self, like: torch.Tensor) -> torch.Tensor:
        """Weights, [N, C], that turn logits into the scalar, in the type and shape of logits.

        Raises:
            ValueError: If it is no weighted sum of them.
        """
        if self.scalar not in LINEAR:
            raise ValueError(f"the {self.scalar} is no weighted sum of logits")
        count = like.shape[-1]
        weights = functional.one_hot(self.targets, count).to(like)
        if self.foils is None:
            return weights
        return weights - functional.one_hot(self.foils, count).to(like)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """The scalar of each row, [N], of logits [N, C]."""
        if self.scalar in LINEAR:
            return (self.weights(logits) * logits).sum(-1)
        if self.scalar == "span":
            return logits[:, 0]
        if self.scalar == "probability":
            return self.probability(logits)
        if self.scalar == "log_prob":
            return self._at_targets(logits.log_softmax(-1))
        return self._at_targets(logits) - _others(logits, self.targets).amax(-1)

    def probability(self, logits: torch.Tensor) -> torch.Tensor:
        """The softmax probability of each row's target, [N]; a value as it is."""
        if self.scalar == "span":
            return logits[:, 0].exp()
        return self._at_targets(logits if self.scalar == "value" else logits.softmax(-1))

    def output(self, logits: torch.Tensor, kind: Output) -> torch.Tensor:
        """A method's own choice of the two, [N] (``logit`` is the scalar that is explained)."""
        return self(logits) if kind == "logit" else self.probability(logits)

    def _at_targets(self, values: torch.Tensor) -> torch.Tensor:
        return values.gather(-1, self.targets[:, None])[:, 0]


def _of_label(instances: Sequence[Instance]) -> bool:
    """Whether they ask for labels, each compared with a logit of zero."""
    return instances[0].question_kind == "label"
