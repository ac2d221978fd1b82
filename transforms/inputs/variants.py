"""Perturbed copies of instances, and what the model says of them.

Copies that are asked for more than once are run once; all of them are sorted by length and packed
across instances, so that batches are full whoever asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Flags, Instance, pack
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Copy, Operation
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import Model
from attribeam.transforms.recovery import halving

# What the score of a unit is of its tokens' scores (``unit_scores``).
WordScore = Literal["sum", "max"]


class NothingToRemoveError(ValueError):
    """An instance has no unit that can be removed, so that there is nothing to ask the model."""

    def __init__(self) -> None:
        super().__init__(
            "nothing to remove: every token is special, read out, or a piece of the word read out"
        )


def unit_scores(
    units: NDArray[np.int64], scores: NDArray[np.floating], word_score: WordScore
) -> NDArray[np.float64]:
    """The score of each unit, [n]: the sum of its tokens' scores, or the largest of them.

    Args:
        units: Number of the unit each token belongs to, -1 for none, [T].
        scores: Score per token, [T].
        word_score: Which of the two. Of units that are tokens they are the same.
    """
    inside, count = units >= 0, int(units.max()) + 1
    of_tokens = np.asarray(scores, np.float64)[inside]
    found = np.zeros(count) if word_score == "sum" else np.full(count, -np.inf)
    join = np.add if word_score == "sum" else np.maximum
    join.at(found, units[inside], of_tokens)
    return found


class _Run(NamedTuple):
    """A copy that is run: what is removed of ``total`` tokens, or pixels, is packed by bits."""

    instance: Instance
    operation: Operation
    bits: bytes
    total: int

    @property
    def copy(self) -> Copy:
        """The same with a flag for each token."""
        flags = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.total)
        return self.instance, self.operation, flags.astype(bool)


class Variants:
    """The distinct perturbed copies of some instances, and what the model said of each.

    Several instances may be questions about one input: its copies are run once for all of them.

    Attributes:
        instances: Per copy the instance that it is of.
        logits: Logits of each copy, [N, C], once run; NaN where it failed.
        probabilities: Their softmax, [N, C].
        errors: What went wrong, by number of the copy.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._kind = inputs_of(model)
        self.instances: list[Instance] = []
        self.errors: dict[int, Exception] = {}
        self.logits: NDArray[np.float64] = np.empty(0)
        self.probabilities: NDArray[np.float64] = np.empty(0)
        self._numbers: dict[tuple[int, str, bytes], int] = {}
        self._runs: list[_Run] = []
        self._lengths: list[int] = []
        self._run_of: list[int] = []
        self._known: dict[tuple[int, str, bytes], int] = {}
        # Inputs by what they are made of, and by the instances that are about them. A GPU runs
        # copies faster than they could be told apart by their content.
        self._inputs: dict[tuple[object, ...], int] = {}
        self._input_of: dict[int, int] = {}

    def add(self, instance: Instance, operation: Operation, removed: Flags) -> int:
        """Number of the copy without some tokens, [T], or pixels; the same for identical ones."""
        if not removed.any():
            operation = "mask"
        bits = np.packbits(removed).tobytes()
        key = (id(instance), operation, bits)
        if key not in self._numbers:
            self._numbers[key] = len(self.instances)
            self.instances.append(instance)
            self._run_of.append(self._run(instance, operation, removed, bits))
        return self._numbers[key]

    def _run(self, instance: Instance, operation: Operation, removed: Flags, bits: bytes) -> int:
        """Number of the run that a copy is read from."""
        key = (self._input(instance), operation, bits)
        if key not in self._known:
            self._known[key] = len(self._runs)
            if instance.against is not None:
                # Its features are had once, whatever it is paired with.
                instance = replace(instance, against=None)
            self._runs.append(_Run(instance, operation, bits, len(removed)))
            self._lengths.append(self._kind.length(self.model, (instance, operation, removed)))
        return self._known[key]

    def _input(self, instance: Instance) -> int:
        """Number of the input that an instance is about, and reads in one way."""
        if id(instance) not in self._input_of:
            fed = instance.content, instance.token_types.tobytes()
            noise = None if instance.noise is None else instance.noise.tobytes()
            key = (*fed, noise, instance.readout, instance.words)
            self._input_of[id(instance)] = self._inputs.setdefault(key, len(self._inputs))
        return self._input_of[id(instance)]

    def run(self, token_budget: int) -> None:
        """Runs all copies, packed by length across instances."""
        runs: list[NDArray[np.float64] | None] = [None] * len(self._runs)
        errors: dict[int, Exception] = {}
        with borrowed(self.model.network):
            for batch in pack(self._lengths, token_budget, self.model.head_size):
                for part, logits in halving(self._forward, batch):
                    if isinstance(logits, Exception):
                        errors[part[0]] = logits
                    else:
                        for at, row in zip(part, logits, strict=True):
                            runs[at] = row
        self._read(runs, errors)

    def _read(
        self, runs: Sequence[NDArray[np.float64] | None], errors: Mapping[int, Exception]
    ) -> None:
        """Reads what each copy asks for from the run that it is of."""
        self.logits = np.full((len(self.instances), self.model.num_outputs), np.nan)
        for number, (instance, at) in enumerate(zip(self.instances, self._run_of, strict=True)):
            if (found := runs[at]) is None:
                self.errors[number] = errors[at]
            elif instance.against is not None:
                self.logits[number] = found @ instance.against
            elif instance.asked is None or instance.words is not None:
                self.logits[number] = found
            else:
                self.logits[number] = [found[o] if o >= 0 else 0.0 for o in instance.asked]
        for broken in np.flatnonzero(~np.isfinite(self.logits).all(axis=1)).tolist():
            self.errors.setdefault(broken, ArithmeticError("the logits are not finite"))
        self.probabilities = self.model.probabilities(torch.from_numpy(self.logits)).numpy()

    def _forward(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Logits of some runs: of words, else of all that there are."""
        with torch.no_grad():
            copies = [self._runs[number].copy for number in numbers]
            rows = self._kind.perturbed(self.model, copies)
            return self.model.run(rows)[0].double().cpu().numpy()
