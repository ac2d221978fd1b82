"""Encoded instances, and how they are packed into batches.

Packing is a pure function of the instances' lengths and the token budget, so micro-batches are the
same on every runner; results don't depend on them anyway, beyond the rounding of floats.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms.inputs.continuation import Continuation, Next
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Rows

Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Instance:
    """One encoded instance; the arrays have one entry per token, special tokens included.

    Attributes:
        instance_id: Key of the instance in every table.
        input_ids: Vocabulary ids, [T].
        segment: Which text the token is of: 0 for the first, 1 for the second, [T]; of a language
            model 0 for the prompt, 1 for what follows.
        special: True for [CLS], [SEP] and the like, [T].
        word_ids: Index of the word within its text, -1 for special tokens, [T].
        char_start: First character of the token in its text, -1 for special tokens, [T].
        char_end: End character (exclusive), -1 for special tokens, [T].
        tokens: Token strings, T of them.
        readout: Position the prediction is read from: 0 ([CLS]) for a classifier, or the last token
            if it is a decoder; the [MASK] for a masked LM. It is never removed or replaced. None
            where it is read from the mean of all positions.
        text: The text; None for a pre-tokenised corpus.
        text_pair: The second text of a pair.
        split: Split of the corpus.
        label: Gold class, None if unknown.
        rationale: 1 where the token's word is in the gold rationale of its text, [T], or None.
        text_rationale: 1 for each word of the whole first text that is in its gold rationale, or
            None; of parts of texts too, which lack some of the words.
        text_pair_rationale: The same of the second text.
        roles: Role of the token's word in the sentence, None for none, [T], or None.
        subset: Subset of the corpus that it is of, or None.
        truncated: Whether the text was longer than the limit, and this is what is left of it.
        row_id: Row of the corpus of which this is a window; None where it is the whole row.
        window: Number of the window, from 0; None where this is the whole row.
        contrast: Vocabulary ids of the correct and the wrong word (masked LM), or None.
        contrast_words: The same two as strings.
        question: Number of the question about the row, from 0; None if there is but one.
        question_kind: What is asked: ``next`` why a token follows, ``all`` why all do that follow;
            ``label`` whether the row has a
            label, of models that give it any number of them; ``value`` a regression's output;
            ``token`` the class of a word; ``start`` and ``end`` where an answer begins and ends;
            ``object`` the class of a thing that a picture shows. None for the row's class, or a
            masked LM's word.
        asked: Number of the output that is asked for, with that of what it is compared with before
            it, if there is one (-1: a logit of zero); None for all outputs.
        asked_names: Names of the outputs asked for, or None.
        own_target: Class to explain, where each instance has its own (``--target objects``).
        types: Token types that the network is fed, [T]; None where they equal ``segment``, and
            where it tells none apart.
        side: Of a pair, which side it is: ``image`` or ``text``; None where there are no pairs.
        against: What its features are compared with: the other side's, of a length of 1, by what
            cosines are multiplied by, [n].
        continuation: What a language model is asked about: all of the row that this is the start
            of, up to the token before the one that is asked for.
        next: The token that is asked for, and what the model said; None until it was run.
        log_prob: Of all that follows, if that is asked for, likewise.
        sources: Number of the segment of a prompt that each token is of, -1 for none, [T].
        source_kinds: What each segment is: a sentence, a document, a message of the user's.
        noise: What is added to its input where gradients are taken: of a text [T, d], of a picture
            [C, H, W]; None for nothing.
        corpus_row: Number of its row in the corpus, from 0, or None.
        given: Scores that others computed for its row, by method (``given_scores.Given``).
        modality: The kind of input that it is (``kinds``).
    """

    instance_id: str
    input_ids: Ints
    segment: Ints
    special: Flags
    word_ids: Ints
    char_start: Ints
    char_end: Ints
    tokens: tuple[str, ...]
    readout: int | None = 0
    text: str | None = None
    text_pair: str | None = None
    split: str | None = None
    label: int | None = None
    rationale: Ints | None = None
    text_rationale: tuple[int, ...] | None = None
    text_pair_rationale: tuple[int, ...] | None = None
    roles: tuple[str | None, ...] | None = None
    subset: str | None = None
    truncated: bool = False
    row_id: str | None = None
    window: int | None = None
    contrast: tuple[int, int] | None = None
    contrast_words: tuple[str, str] | None = None
    question: int | None = None
    question_kind: str | None = None
    asked: tuple[int, ...] | None = None
    asked_names: tuple[str, ...] | None = None
    own_target: int | None = None
    types: Ints | None = None
    side: Literal["image", "text"] | None = None
    against: NDArray[np.floating[Any]] | None = None
    continuation: Continuation | None = None
    next: Next | None = None
    log_prob: float | None = None
    sources: Ints | None = None
    source_kinds: tuple[str, ...] = ()
    noise: NDArray[np.floating[Any]] | None = None
    corpus_row: int | None = None
    given: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    modality: ClassVar[str] = "text"

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def rationale_segments(self) -> tuple[int, ...] | None:
        """Texts that the rationale is of (``segment``); None for the first alone, or none."""
        if self.text_pair_rationale is None:
            return None
        return (1,) if self.text_rationale is None else (0, 1)

    @property
    def outputs(self) -> tuple[int, ...] | None:
        """Numbers of the outputs that are asked for; None for all (``Rows.outputs``)."""
        return self.asked if self.contrast is None else self.contrast

    @property
    def of_all(self) -> bool:
        """Whether all that follows a prompt is asked for, and not one token."""
        return self.question_kind == "all"

    @property
    def words(self) -> tuple[int, ...] | None:
        """Vocabulary ids that are asked for, of models whose outputs are words; else None."""
        return self.contrast if self.continuation is None else self.asked

    @property
    def token_types(self) -> Ints:
        """Token types that the network is fed, [T]."""
        return self.segment if self.types is None else self.types

    @property
    def input_key(self) -> tuple[object, ...]:
        """Equal for instances that are questions about one input, whatever they are called."""
        if self.noise is not None:
            return (id(self),)
        if self.against is not None:
            return self.side, self._digest
        if self.question is None:
            return (id(self),)
        if self.continuation is not None:
            return self.row_id, self.continuation.ids.tobytes()
        return self.row_id, self.window, self._digest, self.token_types.tobytes()

    @cached_property
    def _digest(self) -> bytes:
        """Short for what it is made of."""
        return blake2b(self.content, digest_size=16).digest()

    @property
    def position(self) -> int:
        """The one position that the prediction is read from.

        Raises:
            ValueError: If it is read from a mean.
        """
        if self.readout is None:
            raise ValueError(f"{self.instance_id} is read from a mean of positions")
        return self.readout

    @property
    def content(self) -> bytes:
        """What it is made of, as bytes."""
        return self.input_ids.tobytes()

    @property
    def own_columns(self) -> Mapping[str, Any]:
        """What only its kind has in the table ``instances``, by column."""
        if self.continuation is None:
            return {}
        own = {
            "prompt_length": self.continuation.prompt,
            "given": self.continuation.given,
            "segments": self._segments,
        }
        if self.next is None:
            return {**own, "log_prob": self.log_prob}
        said = self.next
        return {
            **own,
            "token": said.name,
            "token_id": said.token,
            "foil": said.foil_name if said.own_foil else None,
            "foil_id": said.foil if said.own_foil else None,
            "runner_up_id": said.runner_up,
            "logit": said.logit,
            "foil_logit": said.foil_logit,
            "log_prob": said.log_prob,
            "entropy": said.entropy,
            "rank": said.rank,
            "is_eos": said.ends,
        }

    @property
    def _segments(self) -> list[dict[str, Any]] | None:
        """The segments that it has tokens of, with the first and the last of these."""
        if self.sources is None:
            return None
        found = []
        for number, kind in enumerate(self.source_kinds):
            at = np.flatnonzero(self.sources == number)
            if len(at):
                free = bool(self.removable[at].all())
                found.append(
                    {"kind": kind, "first": int(at[0]), "last": int(at[-1]), "removable": free}
                )
        return found

    @property
    def removable(self) -> Flags:
        """Tokens that a perturbation or a baseline may replace: neither special nor read out.

        Where all that follows a prompt is asked for, they are of the prompt.
        """
        free = ~self.special
        if self.of_all and self.continuation is not None:
            free[self.continuation.prompt - 1 :] = False
        if self.readout is not None:
            free[self.readout] = False
        return free

    @property
    def moved(self) -> Flags:
        """Tokens in whose place others stand where a path starts: the removable ones.

        Of language models it is all but special ones: also the one read out, so that all that is
        asked of a row has one path.
        """
        return self.removable if self.continuation is None else ~self.special

    def generator(self, seed: int, purpose: str) -> np.random.Generator:
        """A random generator of this instance's own, the same wherever and whenever it is asked.

        It is keyed by the content, not the position in the corpus, so that the order of the corpus
        and the batch mates are of no consequence. Instances of equal tokens therefore share it:
        they are one observation, of which intervals over instances know nothing.
        """
        key = blake2b(f"{seed}\0{purpose}\0".encode(), digest_size=16)
        key.update(self.content)
        key.update(self.segment.tobytes())
        return np.random.Generator(np.random.Philox(int.from_bytes(key.digest(), "little")))


@dataclass(frozen=True)
class Batch:
    """Instances and their padded rows on the model's device.

    An instance is one question about one input. Where several are about the same one, what depends
    on the input alone can be had once for all of them.

    Attributes:
        instances: B instances.
        rows: Their padded input, a row for each instance, [B, T].
        removable: Tokens that may be replaced (``Instance.removable``), False on padding, [B, T].
        inputs: The inputs, a row for each, with all that is asked of them; ``rows`` where there is
            one instance of each. Questions to a language model are about starts of one row, of
            which it is the longest: what comes after a position has no part in what is read there.
        moving: Tokens that paths replace, [B, T]; None for what they usually do (``moved``).
    """

    instances: tuple[Instance, ...]
    rows: Rows
    removable: torch.Tensor
    inputs: Rows
    moving: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each instance."""
        return [len(instance) for instance in self.instances]

    @cached_property
    def alike(self) -> torch.Tensor | None:
        """The input that each instance is about, by its number, [B]; None if each has its own.

        None also where paths to one input don't replace the same tokens of it (``moved``).
        """
        row = self.inputs.read.row
        if row is None:
            return None
        own, moved = self.rows.attention_mask.bool(), self.moved
        return row if bool((~own | (moved == moved[self.first][row])).all()) else None

    @cached_property
    def moved(self) -> torch.Tensor:
        """Tokens that paths replace (``Instance.moved``), False on padding, [B, T]."""
        if self.moving is not None:
            return self.moving
        if self.instances[0].continuation is None:
            return self.removable
        return put(padded([i.moved for i in self.instances], False, np.bool_), self.rows.device)

    @cached_property
    def first(self) -> torch.Tensor:
        """Number of the first instance about each input, of those of most tokens, [n]."""
        row = self.inputs.read.row
        if row is None:
            return torch.arange(len(self), device=self.rows.device)
        firsts = longest(self.instances, row.tolist())
        return torch.tensor(firsts, device=row.device)

    @cached_property
    def rank(self) -> torch.Tensor:
        """How many questions about its input come before each, [B]."""
        row = self.inputs.read.row
        if row is None:
            return torch.zeros(len(self), dtype=torch.long, device=self.rows.device)
        return (row[:, None] == row).tril(-1).sum(1)

    @cached_property
    def ranks(self) -> list[torch.Tensor]:
        """Numbers of the first instances about all inputs, of the second ones, and so on."""
        return [(self.rank == rank).nonzero()[:, 0] for rank in range(int(self.rank.max()) + 1)]

    def chosen(self, numbers: torch.Tensor) -> "Batch":
        """Some of the instances, by their numbers, as they are padded."""
        rows, removable = self.rows.chosen(numbers), self.removable[numbers]
        instances = tuple(self.instances[number] for number in numbers.tolist())
        if self.inputs.read.row is None:
            return Batch(instances, rows, removable, rows)
        once, row = self.inputs.read.row[numbers].unique(return_inverse=True)
        if len(once) == len(numbers):
            return Batch(instances, rows, removable, rows)
        every = torch.arange(len(row), device=row.device)
        first = torch.full_like(once, len(row)).scatter_reduce(0, row, every, "amin")
        return Batch(instances, rows, removable, rows.shared(first, row))

    @cached_property
    def once(self) -> "Batch":
        """The first instance about each input."""
        return self if self.inputs.read.row is None else self.part(self.first)

    @cached_property
    def read_alike(self) -> bool:
        """Whether all that is asked of an input is read in one way."""
        row, own, first = self.inputs.read.row, self.rows.read, self.once.rows.read
        if row is None:
            return True
        pairs = ((own.at, first.at), (own.weights, first.weights))
        return all(a is None or b is None or torch.equal(a, b[row]) for a, b in pairs)

    def part(self, numbers: torch.Tensor) -> "Batch":
        """Some of the instances, each about another input, by their numbers, [b]."""
        rows = self.rows.chosen(numbers)
        instances = tuple(self.instances[number] for number in numbers.tolist())
        moving = None if self.moving is None else self.moving[numbers]
        return Batch(instances, rows, self.removable[numbers], rows, moving)

    def by_input(self, of_questions: torch.Tensor) -> torch.Tensor:
        """What questions have, [B, ...], by input and rank, [n, R, ...]; zeros for none such."""
        row = self.inputs.read.row
        if row is None:
            return of_questions[:, None]
        shape = (len(self.inputs), int(self.rank.max()) + 1, *of_questions.shape[1:])
        return of_questions.new_zeros(shape).index_put_((row, self.rank), of_questions)

    def by_question(self, of_inputs: torch.Tensor) -> torch.Tensor:
        """The reverse of ``by_input``."""
        row = self.inputs.read.row
        return of_inputs[:, 0] if row is None else of_inputs[row, self.rank]


def longest(instances: Sequence[Instance], row: Sequence[int]) -> list[int]:
    """Number of the first instance of each input of those of most tokens, [n].

    Args:
        instances: B instances.
        row: The input that each is about, by its number.
    """
    found: dict[int, int] = {}
    for number, of in enumerate(row):
        best = found.setdefault(of, number)
        if len(instances[number]) > len(instances[best]):
            found[of] = number
    return [found[of] for of in sorted(found)]


def numbers_asked(
    asked: Sequence[tuple[int, ...] | None], device: torch.device
) -> torch.Tensor | None:
    """Numbers of outputs that instances ask for, [B, K]; None if they ask for all of them."""
    return None if asked[0] is None else put(np.array(asked, np.int64), device)


def compared_with(instances: Sequence[Instance], model: Model) -> torch.Tensor | None:
    """What features of instances are compared with, [B, n] (``Rows.against``)."""
    if instances[0].against is None:
        return None
    return put(np.stack([np.asarray(i.against) for i in instances]), model.device).to(model.dtype)


def noise_of(
    instances: Sequence[Instance],
    model: Model,
    positions: Sequence[NDArray[np.int64]] | None = None,
) -> torch.Tensor | None:
    """What is added to what enters the first layer for instances, [B, T, d] (``Rows.noise``).

    Args:
        instances: The instances; None is given where none of them has any.
        model: The model.
        positions: Of each row the positions of the instance that stand there, -1 for one that has
            been replaced and has no noise; None for all, in order.
    """
    if all(instance.noise is None for instance in instances):
        return None
    kept = [np.arange(len(i)) for i in instances] if positions is None else positions
    out = np.zeros((len(instances), max(map(len, kept)), model.hidden_size))
    for row, instance, own in zip(out, instances, kept, strict=True):
        if instance.noise is not None:
            row[: len(own)] = np.where((own >= 0)[:, None], instance.noise[own], 0)
    return put(out, model.device).to(model.dtype)


def padded(arrays: Sequence[NDArray[np.generic]], fill: int, dtype: type) -> NDArray[np.generic]:
    """Arrays [T] one above the other, each filled up to the length of the longest."""
    out: NDArray[np.generic] = np.full((len(arrays), max(map(len, arrays))), fill, dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


def put(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """An array on a device."""
    tensor = torch.from_numpy(array)
    if not is_pinned_for(device):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def is_pinned_for(device: torch.device) -> bool:
    """Whether arrays go to a device through pinned memory.

    The copy then runs beside what the host and the device are doing.
    """
    return device.type == "cuda"


def row_cost(length: int, head_size: int) -> float:
    """Memory of one row of ``length`` tokens, in tokens of a short row.

    The activations of a layer take about 18 hidden sizes a token; attention probabilities add about
    three (scores, softmax, gradient) times heads * length, that is length / (6 * head_size) of it.
    """
    return length * (1 + length / (6 * head_size))


# Budgets in tokens of a short row (see ``row_cost``). On CPUs batches beyond the caches don't get
# faster; a GPU wants as many tokens at once as it takes to fill it.
TOKEN_BUDGETS = {"cpu": 1024, "cuda": 32768}

# Padding costs as much as tokens do; a path's steps fill a small batch up again anyway.
_MOST_PADDING = 0.1


# What is kept of a further question about an input, for each token and in the same unit: a gradient
# or two, where the activations of each layer are 18 vectors.
_QUESTION = 1 / 32


def pack(
    lengths: Sequence[int], budget: int, head_size: int, questions: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Cuts rows into batches of similar length within a token budget.

    Args:
        lengths: Number of tokens of each row.
        budget: Largest cost of a batch, padding included, in the unit of ``row_cost``. A row that
            is larger on its own is a batch of its own.
        head_size: Hidden size over number of heads.
        questions: How many there are about each row; None for one.

    Yields:
        Indices into ``lengths``, the longest rows first (so that memory runs out early if it does).
        A batch ends before its padding would be more than a tenth of its tokens.
    """
    asked = [1] * len(lengths) if questions is None else questions
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], -asked[index], index))
    batch: list[int] = []
    tokens = more = 0
    for index in order:
        if batch:
            longest, rows = lengths[batch[0]], len(batch) + 1
            padded = rows * longest > (1 + _MOST_PADDING) * (tokens + lengths[index])
            further = (more + asked[index] - 1) * longest * _QUESTION
            if padded or rows * row_cost(longest, head_size) + further > budget:
                yield batch
                batch, tokens, more = [], 0, 0
        batch.append(index)
        tokens, more = tokens + lengths[index], more + asked[index] - 1
    if batch:
        yield batch


def pack_questions(
    lengths: Sequence[int], inputs: Sequence[Hashable], budget: int, head_size: int
) -> Iterator[list[int]]:
    """As ``pack``, of questions: those about an input are in one batch, which it counts in once.

    Args:
        lengths: Number of tokens of each question.
        inputs: What each is about, equal for those about the same (``Instance.input_key``).
        budget: As of ``pack``. Where more is asked of an input than there is room for beside it, or
            than takes as much as it does itself, that is several batches.
        head_size: As of ``pack``.

    Yields:
        Indices into ``lengths``, those of an input one after the other.
    """
    about: dict[Hashable, list[int]] = {}
    for index, key in enumerate(inputs):
        about.setdefault(key, []).append(index)
    parts: list[list[int]] = []
    for indices in about.values():
        longest = max(lengths[index] for index in indices)
        own = row_cost(longest, head_size)
        most = 1 + int((max(budget, 2 * own) - own) / (longest * _QUESTION)) if longest else 1
        parts += [indices[start : start + most] for start in range(0, len(indices), most)]
    longest_of = [max(lengths[index] for index in part) for part in parts]
    for batch in pack(longest_of, budget, head_size, [len(part) for part in parts]):
        yield [index for number in batch for index in parts[number]]
