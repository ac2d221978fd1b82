"""From values of hidden units, of pixels, or of parts of prompts, to scores of positions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.targets import LINEAR
from attribeam.transforms.network.rules import RuleName
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.segments import Segments, sources_of
from attribeam.transforms.registry import Scores

_summed = partial(torch.sum, dim=-1)


def reduced(
    captured: Captured,
    vectors: torch.Tensor,
    reduce: Callable[[torch.Tensor], torch.Tensor] = _summed,
) -> Scores:
    """Scores of positions, and by pixel where these are asked for.

    Args:
        captured: What the values come from.
        vectors: Values by position, [B, T, n].
        reduce: From those of a position, or of the channels of a pixel, to one score.
    """
    finer = None
    if captured.pixels:
        finer = inputs_of(captured.model).finer(captured.model, vectors)
    return Scores(reduce(vectors), pixels=None if finer is None else reduce(finer))


class NoSegmentsError(ValueError):
    """A prompt has no parts that could be scored."""

    def __init__(self) -> None:
        super().__init__(
            "the prompt has no segments: give them (a column segments), or let it be cut by a rule "
            "(--segments)"
        )


def of_segments(captured: Captured, rules: RuleName | None) -> Scores:
    """Gradient times input of the parts of prompts (``sources=segments``).

    Each token of a part has the part's score, and tokens of no part have 0. What the scores of all
    parts and an explained sum of logits are apart by is ``unattributed``, if relevance is by rules.

    Args:
        captured: What is explained.
        rules: Rules of relevance; None for none.
    """
    found, sources = captured(Segments(rules)), sources_of(captured.batch)
    beside = torch.cat([found, torch.zeros_like(found[:, :1])], 1) if found.shape[1] else None
    none = (sources < 0).all(1).nonzero()[:, 0].tolist()
    errors = {number: NoSegmentsError() for number in none}
    if beside is None:
        return Scores(torch.zeros_like(sources, dtype=captured.logits.dtype), errors=errors)
    scores = Scores(beside.gather(1, sources % beside.shape[1]), errors=errors)
    if rules is None or captured.question.scalar not in LINEAR:
        return scores
    return replace(scores, unattributed=captured.explained - found.sum(1))
