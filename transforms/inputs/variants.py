"""Perturbed copies of instances, and what the model says of them.

Copies that are asked for more than once are run once; all of them are sorted by length and packed
across instances, so that batches are full whoever asked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Flags, Instance, numbers_asked, pack, put, row_cost
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Copy, Operation
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import VALUES, Model, Past, compared_distributions
from attribeam.transforms.network.rows import Beside, Read, Rows
from attribeam.transforms.recovery import halving, is_device_lost

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


# Gives logits of some runs, by their numbers.
_Forward = Callable[[Sequence[int]], Sequence[NDArray[np.float64]]]
# Fewest copies of a row that are run at once.
_FEWEST = 8


class _Read(NamedTuple):
    """What is asked of a run: the words at a position, of the tokens that it has whole."""

    at: int
    words: tuple[int, ...]


# A place in a row that something is read at: what the row is made of, and the position.
_Position = tuple[bytes, bytes | None, int]


class Variants:
    """The distinct perturbed copies of some instances, and what the model said of each.

    Several instances may be questions about one input: its copies are run once for all of them. Of
    a language model they are about starts of one row: the longest is run, as what comes after a
    position has no part in what is read there.

    Attributes:
        instances: Per copy the instance that it is of.
        logits: Logits of each copy, [N, C], once run; NaN where it failed.
        probabilities: Their softmax, [N, C].
        errors: What went wrong, by number of the copy.
        single: How many of the logits are of one output each (``Model.num_single``).
    """

    def __init__(self, model: Model, *, distributions: bool = False) -> None:
        """Begins with no copies.

        Args:
            model: The model.
            distributions: Whether ``shifts`` will be asked for, which language models compute while
                their copies are run. The whole input of each is a copy, too, then.
        """
        self.model = model
        self._distributions = distributions and model.task == "causal_lm"
        # Of language models: what the head reads of whole rows; entropies and divergences.
        self._states: dict[_Position, torch.Tensor] = {}
        self._shifts: NDArray[np.float64] = np.empty(0)
        self.single = model.num_single
        self._kind = inputs_of(model)
        self.instances: list[Instance] = []
        self.errors: dict[int, Exception] = {}
        self.logits: NDArray[np.float64] = np.empty(0)
        self.probabilities: NDArray[np.float64] = np.empty(0)
        self._numbers: dict[tuple[int, str, bytes], int] = {}
        self._runs: list[_Run] = []
        self._lengths: list[int] = []
        self._run_of: list[int] = []
        # Of each run what is read of it, if that are several things, and which of them a copy is.
        self._reads: list[dict[_Read, int]] = []
        self._read_of: list[int] = []
        self._known: dict[tuple[object, ...], int] = {}
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
            read = _next(instance)
            find = self._run if read is None else self._row
            number = find(instance, operation, removed, bits)
            self._run_of.append(number)
            reads = self._reads[number]
            self._read_of.append(0 if read is None else reads.setdefault(read, len(reads)))
        return self._numbers[key]

    def _run(self, instance: Instance, operation: Operation, removed: Flags, bits: bytes) -> int:
        """Number of the run that a copy is read from."""
        key = (self._input(instance), operation, bits)
        if key not in self._known and instance.against is not None:
            # Its features are had once, whatever it is paired with.
            instance = replace(instance, against=None)
        return self._known_as(key, instance, operation, removed, bits)

    def _row(self, instance: Instance, operation: Operation, removed: Flags, bits: bytes) -> int:
        """The same of a start of a row, of which the longest that is asked about is run."""
        assert instance.continuation is not None
        row = instance.continuation.fed
        every = np.packbits(np.pad(removed, (0, len(row) - len(removed)))).tobytes()
        key = (*_row_of(instance), operation, every)
        number = self._known_as(key, instance, operation, removed, bits)
        if len(instance) > len(self._runs[number].instance):
            self._runs[number] = _Run(instance, operation, bits, len(removed))
            self._lengths[number] = self._kind.length(self.model, (instance, operation, removed))
        return number

    def _known_as(
        self,
        key: tuple[object, ...],
        instance: Instance,
        operation: Operation,
        removed: Flags,
        bits: bytes,
    ) -> int:
        """Number of a run, which is a new one if none is known by a key."""
        if key not in self._known:
            self._known[key] = len(self._runs)
            self._runs.append(_Run(instance, operation, bits, len(removed)))
            self._reads.append({})
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
            for batch, forward in self._batches(token_budget):
                for part, logits in halving(forward, batch):
                    if isinstance(logits, Exception):
                        errors[part[0]] = logits
                    else:
                        for at, row in zip(part, logits, strict=True):
                            runs[at] = row
        self._read(runs, errors)

    def _batches(self, token_budget: int) -> Iterator[tuple[list[int], _Forward]]:
        """Numbers of runs, and what runs them: by length, or those of a row by what they share."""
        rest = set(range(len(self._runs)))
        if self._distributions:
            whole = [at for at in sorted(rest) if self._reads[at] and not any(self._runs[at].bits)]
            rest -= set(whole)
            yield from self._packed(whole, self._whole_forward, token_budget)
        for start in self._starts():
            rest -= {number for number, _ in start}
            yield from self._continued(start, token_budget)
        yield from self._packed(sorted(rest), self._forward, token_budget)

    def _packed(
        self, numbers: Sequence[int], forward: _Forward, token_budget: int
    ) -> Iterator[tuple[list[int], _Forward]]:
        """Runs of similar lengths at a time."""
        lengths = [self._lengths[number] for number in numbers]
        for batch in pack(lengths, token_budget, self.model.head_size):
            yield [numbers[at] for at in batch], forward

    def _starts(self) -> list[list[tuple[int, int]]]:
        """Runs of each row that begin as the row does, with how many tokens, the fewest first.

        They are those where more is saved than running the row takes.
        """
        if not self.model.causal or self.model.anatomy.indexed:
            return []
        rows: dict[bytes, list[tuple[int, int]]] = {}
        for number, run in enumerate(self._runs):
            if not self._reads[number] or run.instance.noise is not None:
                continue
            if (removed := run.copy[2]).any():
                assert run.instance.continuation is not None
                key = run.instance.continuation.fed.tobytes()
                rows.setdefault(key, []).append((number, int(removed.argmax())))
        found = [sorted(runs, key=lambda run: run[::-1]) for runs in rows.values()]
        return [
            runs
            for runs in found
            if sum(start for _, start in runs) > 2 * len(self._runs[runs[0][0]].instance)
        ]

    def _continued(
        self, starts: Sequence[tuple[int, int]], token_budget: int
    ) -> Iterator[tuple[list[int], _Forward]]:
        """Runs of a row that begin as it does: they go on from what its layers hold."""
        row = max((self._runs[number].instance for number, _ in starts), key=len)
        try:
            past = self.model.past_of(self._kind.rows(self.model, [row]))
        except Exception as error:
            if is_device_lost(error):
                raise
            past = ()
        cost = row_cost(len(row), self.model.head_size)
        # Few enough for those of a batch to have nearly the same in common.
        at_once = max(1, min(int(token_budget / cost), max(_FEWEST, len(row) // 8)))
        for first in range(0, len(starts), at_once):
            numbers, shared = zip(*starts[first : first + at_once], strict=True)
            common = min(shared) if past else 0
            before = [(keys[:, :, :common], values[:, :, :common]) for keys, values in past]
            forward = partial(self._forward, common=common, past=before if common else ())
            yield list(numbers), forward

    def _read(
        self, runs: Sequence[NDArray[np.float64] | None], errors: Mapping[int, Exception]
    ) -> None:
        """Reads what each copy asks for from the run that it is of."""
        outputs = self.model.num_outputs
        self.logits = np.full((len(self.instances), outputs), np.nan)
        self._shifts = np.full((len(self.instances), 2), np.nan)
        for number, (instance, at) in enumerate(zip(self.instances, self._run_of, strict=True)):
            if (found := runs[at]) is None:
                self.errors[number] = errors[at]
            elif self._reads[at]:
                read = found[self._read_of[number]]
                self.logits[number] = read[:outputs]
                if self._distributions:
                    self._shifts[number] = read[outputs:]
            elif instance.against is not None:
                self.logits[number] = found @ instance.against
            elif instance.asked is None or instance.words is not None:
                self.logits[number] = found
            else:
                self.logits[number] = [found[o] if o >= 0 else 0.0 for o in instance.asked]
        for broken in np.flatnonzero(~np.isfinite(self.logits).all(axis=1)).tolist():
            self.errors.setdefault(broken, ArithmeticError("the logits are not finite"))
        self.probabilities = self.model.probabilities(torch.from_numpy(self.logits)).numpy()

    def shifts(self, numbers: Sequence[int], whole: int) -> NDArray[np.float64] | None:
        """How sure the model is of some copies, and how far what it says is from another.

        Distributions are those of its classes; of a masked LM of its two words, of a label of its
        absence and presence; of a language model of all tokens of the vocabulary.

        Args:
            numbers: Numbers of the copies.
            whole: That of the whole input, which they are compared with.

        Returns:
            Entropy of each, and KL(copy || whole), both in nats, [n, 2]; None of a model whose
            outputs are values.
        """
        if self.model.task in VALUES:
            return None
        if self.model.task == "causal_lm":
            return self._shifts[list(numbers)]
        logits = torch.from_numpy(self.logits)
        return compared_distributions(logits[list(numbers)], logits[[whole]]).numpy()

    def _whole_forward(self, numbers: Sequence[int]) -> Sequence[NDArray[np.float64]]:
        """As ``_forward``, of whole rows; what the head reads of them is kept."""
        return self._forward(numbers, whole=True)

    def _beside(self, numbers: Sequence[int]) -> Beside:
        """What is read of whole rows where runs are read, to be compared with."""
        places = [at for number in numbers for at in self._places(number)]
        order = {at: number for number, at in enumerate(dict.fromkeys(places))}
        # Of a whole row that failed there is none, and its curves fail with it.
        none = torch.full((self.model.hidden_size,), torch.nan, device=self.model.device)
        states = [self._states.get(at, none) for at in order]
        of = put(np.array([order[at] for at in places]), self.model.device)
        return Beside(torch.stack([state.to(states[0]) for state in states]), of)

    def _places(self, number: int) -> list[_Position]:
        """Where a run is read, in its whole row."""
        row = _row_of(self._runs[number].instance)
        return [(*row, read.at) for read in self._reads[number]]

    def _forward(
        self, numbers: Sequence[int], common: int = 0, past: Past = (), *, whole: bool = False
    ) -> Sequence[NDArray[np.float64]]:
        """Logits of some runs: of words, else of all that there are.

        Args:
            numbers: Those of the runs.
            common: How many tokens they begin with that their row begins with.
            past: What the model holds of these.
            whole: Whether they are whole rows, which others are compared with.
        """
        with torch.no_grad():
            copies = [self._runs[number].copy for number in numbers]
            rows = self._kind.perturbed(self.model, copies)
            reads = [list(self._reads[number]) for number in numbers]
            if reads[0]:
                rows = self._read_at(rows, copies, reads)
            rows = rows.after(common) if common else rows
            if self._distributions and reads[0]:
                rows = replace(rows, beside=Beside() if whole else self._beside(numbers))
            found, recorder = self.model.run(rows, past=past)
            if whole:
                places = [at for number in numbers for at in self._places(number)]
                states = self.model.states_of(recorder, rows)
                self._states.update(zip(places, states, strict=True))
            logits: NDArray[np.float64] = found.double().cpu().numpy()
        ends = np.cumsum([len(of) for of in reads])
        return np.split(logits, ends[:-1]) if reads[0] else list(logits)

    def _read_at(
        self, rows: Rows, copies: Sequence[Copy], reads: Sequence[Sequence[_Read]]
    ) -> Rows:
        """Rows of copies with all that is read of each."""
        at, words = [], [read.words for of in reads for read in of]
        for copy, of in zip(copies, reads, strict=True):
            instance, _, removed = copy
            gone = self._kind.length(self.model, copy) < len(instance)
            at += [read.at - int(gone and removed[: read.at].sum()) for read in of]
        row = np.repeat(np.arange(len(copies)), [len(of) for of in reads])
        device = self.model.device
        read = Read(put(np.array(at), device), row=put(row, device))
        return replace(rows, read=read, outputs=numbers_asked(words, device))


def _next(instance: Instance) -> _Read | None:
    """What is read of a start of a row, of a language model that is asked what follows."""
    words = instance.words
    if instance.continuation is None or instance.of_all or words is None:
        return None
    return _Read(instance.position, words)


def _row_of(instance: Instance) -> tuple[bytes, bytes | None]:
    """What the row is made of that an instance is the start of."""
    assert instance.continuation is not None
    noise = None if instance.noise is None else instance.noise.tobytes()
    return instance.continuation.fed.tobytes(), noise
