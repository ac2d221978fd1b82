"""ContextCite: which parts of a prompt what follows rests on, by sparse regression on ablations.

One design of masks serves all that is asked of a row: it depends on the number of parts alone. So a
copy without some parts is run once for every token that follows, and for all of them together.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Flags
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Operation
from attribeam.transforms.inputs.variants import NothingToRemoveError
from attribeam.transforms.methods.lasso import lasso
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.perturb import Perturb, outcomes
from attribeam.transforms.registry import Choice, ChoiceByKind, Method, Params, Scores, register

Floats = NDArray[np.float64]
# Least that is taken for what is left of a probability to one, so that its logarithm is a number.
_LEAST = np.finfo(np.float64).eps


def context_cite(captured: Captured, params: Params) -> Scores:
    """ContextCite (Cohen-Wang et al. 2024, section 3): a linear surrogate of ablations of sources.

    With z_s saying which of K units copy s keeps, each with probability ``keep``, and y_s =
    log p - log(1 - p) of the probability p of what is asked (of all that follows: of all of its
    tokens), score[unit] is its weight w in the Lasso of y / C on standardised z, multiplied by C:
    argmin_w sum_s (y_s / C - w . z_s - b)^2 / (2 S) + alpha ||w||_1, with C the number of tokens
    that are asked for. It is the same for each token of a unit. Masks are the authors': copy s of
    S is drawn by numpy's ``RandomState(seed * S + s)``, whatever the row.
    """
    units = [inputs_of(one).units_of(one, params["unit"]) for one in captured.batch.instances]
    counts = [int(of.max()) + 1 for of in units]
    designs = {count: masks(count, captured.seed, params) for count in set(counts)}
    operation: Operation = params["operation"]
    wanted = [
        (number, operation, removed)
        for number, (of, count) in enumerate(zip(units, counts, strict=True))
        for removed in _removed(designs[count], of)
    ]
    said = np.split(
        _logarithms(captured, wanted), np.cumsum([len(designs[n]) for n in counts])[:-1]
    )
    values, errors = np.zeros(captured.batch.rows.attention_mask.shape), {}
    for number, (of, count, log_probs) in enumerate(zip(units, counts, said, strict=True)):
        if not count:
            errors[number] = NothingToRemoveError()
            continue
        asked = _asked(captured, number)
        odds = log_probs - np.log(np.maximum(-np.expm1(log_probs), _LEAST))
        weights, _ = lasso(designs[count].astype(np.float64), odds / asked, params["alpha"])
        values[number, : len(of)] = np.append(asked * weights, 0)[of]
    return Scores(torch.from_numpy(values).to(captured.logits), errors=errors)


def masks(count: int, seed: int, params: Params) -> Flags:
    """Which of some units each copy keeps, [S, K]; none of no units."""
    samples, keep = params["samples"], params["keep"]
    if not count:
        return np.empty((0, 0), bool)
    drawn = [np.random.RandomState((seed * samples + s) % 2**32) for s in range(samples)]
    return np.stack([one.choice([False, True], size=count, p=[1 - keep, keep]) for one in drawn])


def _removed(kept: Flags, units: NDArray[np.int64]) -> Flags:
    """Which tokens each copy lacks, [S, T]; those of no unit stay."""
    return (
        np.pad(~kept, ((0, 0), (0, 1)))[:, units] if len(kept) else np.empty((0, len(units)), bool)
    )


def _logarithms(captured: Captured, wanted: Sequence[tuple[int, Operation, Flags]]) -> Floats:
    """Logarithms of the probability of what is asked, of copies, [N]."""
    logits = torch.from_numpy(outcomes(captured, wanted))
    if captured.model.task == "continuation":
        return logits[:, 0].numpy()
    targets = captured.targets.cpu()[[number for number, _, _ in wanted]]
    found: Floats = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].numpy()
    return found


def _asked(captured: Captured, number: int) -> int:
    """How many tokens are asked for."""
    instance = captured.batch.instances[number]
    return len(instance.continuation) if instance.continuation and instance.of_all else 1


def _needs(params: Params) -> tuple[Perturb, ...]:
    if not 0 < params["keep"] < 1:
        raise UsageError(f"context_cite.keep is between 0 and 1, not {params['keep']}")
    if params["samples"] < 2 or params["alpha"] < 0:
        raise UsageError("context_cite.samples is at least 2, and context_cite.alpha at least 0")
    return (Perturb(params["operation"]),)


register(
    Method(
        name="context_cite",
        compute=context_cite,
        needs=_needs,
        defaults={
            "samples": 64,
            "keep": 0.5,
            "alpha": 0.01,
            "operation": ChoiceByKind("operations", ("delete", "pad", "mask")),
            "unit": Choice("word", "segment", "token"),
        },
        requires=("tokens", "probability"),
        signed=True,
        class_dependent=True,
        additive=False,
        stochastic=True,
        by_input=True,
        opt_in="it is meant for parts of prompts (unit=segment), which rows may lack",
        cost="samples F",
        paper="Cohen-Wang et al. 2024 (ContextCite), section 3",
        equation="argmin_w sum_s (y_s - w z_s - b)^2 / 2S + alpha ||w||_1, y = log p / (1 - p)",
    )
)
