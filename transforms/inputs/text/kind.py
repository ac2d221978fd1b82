"""Texts as a kind of input: positions are tokens, and words and bags of words are made of them.

Removing by ``pad`` means: the padding token in the token's place, hidden by the attention mask.
Hidden tokens have no effect on the others, so such rows are run without them, at the positions that
the others had; that is the same number at a fraction of the cost.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import (
    Batch,
    Flags,
    Instance,
    compared_with,
    noise_of,
    numbers_asked,
    padded,
    put,
)
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError
from attribeam.transforms.inputs.seam import (
    Copy,
    Enter,
    EvaluationProtocol,
    Operation,
    Space,
    SpaceName,
    Unit,
)
from attribeam.transforms.inputs.text.continued import continued
from attribeam.transforms.inputs.text.contrast import with_contrast
from attribeam.transforms.inputs.text.layout import Layout, distinct, laid_out, leaves_out
from attribeam.transforms.inputs.text.texts import from_text
from attribeam.transforms.inputs.text.tokenised import from_ids
from attribeam.transforms.inputs.text.windows import NoRoomError, around_readout, windows, without
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Read, Rows, Spoken


class Text:
    """Texts, pairs of texts, and rows of tokens."""

    operations: tuple[Operation, ...] = ("mask", "pad", "delete")
    units: tuple[Unit, ...] = ("token", "word", "bag", "segment")
    starts: tuple[str, ...] = ("pad", "mask", "mask_words", "zero", "unk", "id0")
    protocols: tuple[EvaluationProtocol, ...] = ("token", "word", "segment", "compat")

    # From a row to instances -----------------------------------------------------------------

    def encode(self, model: Model, row: Row, options: EncodeOptions) -> list[Instance]:
        """The instance of a row; of one that is too long its windows, if these are asked for.

        Raises:
            RowError: If the row has no text, is too long (``overflow="fail"``), has a token that
                the model doesn't have, or lacks what a masked LM needs.
        """
        if model.task == "causal_lm":
            return [continued(model, row, options)]
        made = from_text if row.input_ids is None else from_ids
        instance = made(model, row, options)
        masked = model.task == "masked_lm"
        instance = (
            with_contrast(model, row, instance) if masked else _read(model, _ended(model, instance))
        )
        self.check(instance)
        if message := _lacking(model, instance):
            raise RowError(message)
        if len(instance) <= options.max_length:
            return [instance]
        try:
            if masked:
                return [around_readout(instance, options.max_length)]
            several = windows(instance, options.max_length, options.stride)
        except NoRoomError as error:
            raise RowError(str(error)) from None
        return [_read(model, window) for window in several]

    def check(self, instance: Instance) -> None:
        """Checks that there are tokens of the text.

        Raises:
            RowError: If there are none.
        """
        there = ~instance.special
        if instance.contrast is not None:
            there[instance.position] = False
        if not there.any():
            what = "text" if instance.window is None else "window"
            raise RowError(f"the {what} has no tokens (only whitespace or invisible characters)")

    def fault(self, model: Model, instance: Instance) -> str | None:
        """Tokens or types that the network has no embeddings for, or more than it has positions."""
        message = _lacking(model, instance)
        if message is None and len(instance) > model.capacity:
            return f"{len(instance)} tokens, but the model takes {model.capacity}"
        return message

    # From instances to what the network is given ---------------------------------------------

    def rows(self, model: Model, instances: Sequence[Instance]) -> Rows:
        """Instances as padded rows.

        Padding is hidden by the mask: where the model's own is unknown, any token will do.
        """
        fed = {"input_ids": padded([i.input_ids for i in instances], model.pad_id or 0, np.int64)}
        if model.token_types > 1:
            fed["token_type_ids"] = padded([i.token_types for i in instances], 0, np.int64)
        mask = padded([np.ones(len(i)) for i in instances], 0, np.int64)
        spoken = _spoken_of(instances, (np.arange(len(i)) for i in instances), model.device)
        return Rows(
            inputs={name: put(values, model.device) for name, values in fed.items()},
            attention_mask=put(mask, model.device),
            spoken=spoken,
            read=_read_of([i.readout for i in instances], mask, spoken, model.device),
            outputs=numbers_asked([i.outputs for i in instances], model.device),
            against=compared_with(instances, model),
            noise=noise_of(instances, model),
        )

    def perturbed(self, model: Model, copies: Sequence[Copy]) -> Rows:
        """Perturbed copies as padded rows, which ask for all outputs but where these are words.

        Where tokens are left out, those that stay keep their positions under ``pad`` and close up
        under ``delete``. Where positions are more than their ids (``Anatomy.indexed``) tokens are
        hidden under ``pad``, and not left out.
        """
        instances, owners = distinct(copies)
        laid = laid_out(model, copies, [len(i) for i in instances], owners)
        operations = np.array([operation for _, operation, _ in copies])[:, None]
        ids = laid.values([i.input_ids for i in instances], model.pad_id or 0)
        if model.mask_id is not None:
            ids[laid.removed & (operations == "mask")] = model.mask_id
        types = laid.values([i.token_types for i in instances], 0)
        mask = (laid.there & ~(laid.removed & (operations == "pad"))).astype(np.int64)
        places = np.where(operations == "delete", np.arange(ids.shape[1]), laid.positions)
        first = model.anatomy.first_position(model.network.config)
        positions = first + np.where(laid.there, places, 0)
        # What noise is added to: what stays, and isn't removed.
        noisy = np.where(laid.there & ~laid.removed, laid.positions, -1)
        fed = {"input_ids": ids} | ({"token_type_ids": types} if model.token_types > 1 else {})
        there = (np.flatnonzero(kept) for kept in laid.kept)
        spoken = _spoken_of([instance for instance, _, _ in copies], there, model.device)
        return Rows(
            inputs={name: put(values, model.device) for name, values in fed.items()},
            attention_mask=put(mask, model.device),
            spoken=spoken,
            read=_read_of(_readouts(laid, copies), mask, spoken, model.device),
            outputs=numbers_asked([i.words for i, _, _ in copies], model.device),
            position_ids=put(positions, model.device),
            against=compared_with([i for i, _, _ in copies], model),
            noise=noise_of([i for i, _, _ in copies], model, list(noisy)),
        )

    def length(self, model: Model, copy: Copy) -> int:
        """Number of tokens that a copy is run with."""
        _, operation, tokens = copy
        gone = int(np.count_nonzero(tokens)) if leaves_out(model, operation) else 0
        return len(tokens) - gone

    # What is removed, and what is put in its place -------------------------------------------

    def units_of(self, instance: Instance, unit: Unit) -> NDArray[np.int64]:
        """Number of the removable unit each token belongs to, -1 for none, [T].

        A unit is a token, a word, a bag or a segment. A word of which a piece is read out (a
        [MASK]) isn't removed, nor a segment of which anything is kept.
        """
        if unit == "bag":
            return _bags(instance)
        if unit == "segment":
            return _segments(instance)
        free = instance.removable
        if unit == "token":
            keys = np.arange(len(instance))
        else:
            keys = instance.word_ids.astype(np.int64) * 2 + instance.segment
            at = instance.readout
            if at is not None and not instance.special[at]:
                free = free & (keys != keys[at])
        units = np.full(len(instance), -1)
        if free.any():
            _, first, numbers = np.unique(keys[free], return_index=True, return_inverse=True)
            # In the order in which they stand, of a pair too.
            units[free] = first.argsort().argsort()[numbers]
        return units

    def usual_operation(self, model: Model) -> Operation:
        """By the mask token, or if that is unknown by padding."""
        return "pad" if model.mask_id is None else "mask"

    def check_operation(self, model: Model, operation: Operation, wish: str, remedy: str) -> None:
        """Checks that the mask token is known, if it is needed: padding is left out or hidden.

        Raises:
            UsageError: If it is unknown.
        """
        if operation == "mask":
            _check_token(model, operation, wish, remedy)

    def check_start(self, model: Model, start: str, wish: str, remedy: str) -> None:
        """Checks that the token that stands at the start of a path is known.

        Raises:
            UsageError: If it is unknown.
        """
        _check_token(model, start.removesuffix("_words"), wish, remedy)

    def same_start(self, start: str) -> bool:
        """False: even zeros are as many as there are tokens."""
        return False

    @torch.no_grad()
    def summed(self, model: Model, rows: Rows) -> torch.Tensor:
        """What tokens, positions and types look up, added up, [B, T, E] in float64.

        It is caught as it is looked up, so that no table is cast.
        """
        looked_up: list[torch.Tensor] = []

        def keep(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            looked_up.append(output.double())

        with ExitStack() as hooks:
            for module in model.network.base_model.modules():
                if isinstance(module, nn.Embedding):
                    hooks.callback(module.register_forward_hook(keep).remove)
            model.embed(rows)
        return torch.stack(torch.broadcast_tensors(*looked_up)).sum(0)

    def leaf(self, model: Model, rows: Rows) -> tuple[torch.Tensor, Enter]:
        """What enters the first layer itself, [B, T, d]; of a language model what words look up.

        Embeddings of positions are no part of that then, as in inseq, LXT and captum.
        """
        with torch.no_grad():
            if model.speaks:
                return _words(model, rows.inputs["input_ids"]), model.embed
            return model.embed(rows), lambda _, entered: entered

    def there(self, model: Model, rows: Rows) -> torch.Tensor:
        """True for the hidden units of tokens, [B, T, 1]."""
        return rows.attention_mask[..., None].bool()

    def vectors(self, model: Model, values: torch.Tensor) -> torch.Tensor:
        """Values of hidden units, [B, T, d], which are by token."""
        return values

    def finer(self, model: Model, vectors: torch.Tensor) -> torch.Tensor | None:
        """None: nothing is finer than a token."""
        return None

    @torch.no_grad()
    def space(self, model: Model, batch: Batch, name: SpaceName, start: str) -> Space:
        """The path of a batch from ``mask`` or ``pad`` in its tokens' places, or from ``zero``.

        In what is ``embedded`` those alone are replaced that are ``moved``. In ``words`` all are
        (removable ones by ``mask_words``), and embeddings of positions and types are no part of
        the path. Of language models, and where texts are compared with pictures, the path from
        ``zero`` is that of words in either, as Beyond Intuition's authors have it: embeddings of
        positions stay.

        Raises:
            ValueError: If the token is unknown.
        """
        rows = batch.rows
        if name == "embedded":
            return Space(
                _embedded(model, batch, start), model.embed(rows), lambda _, points: points
            )
        words = _words(model, rows.inputs["input_ids"])
        if start == "zero":
            return Space(torch.zeros_like(words), words, model.embed)
        token = _token(model, start.removesuffix("_words"))
        everywhere = torch.ones_like(batch.removable)
        replaced = batch.removable if start == "mask_words" else everywhere
        ids = rows.inputs["input_ids"].masked_fill(replaced, token)
        return Space(_words(model, ids), words, model.embed)


def _ended(model: Model, instance: Instance) -> Instance:
    """The instance down to its end token, if the model reads that: nothing after it has a say."""
    if (end := model.anatomy.end) is None:
        return instance
    at = end(model.network.config, instance.input_ids)
    if at is None:
        token = model.network.config.eos_token_id
        raise RowError(f"the text has no end token (id {token}), where the model reads it")
    after = np.arange(at + 1, len(instance))
    return without(instance, after) if len(after) else instance


def _read(model: Model, instance: Instance) -> Instance:
    """The instance with the position that a classifier reads its prediction from."""
    readout = model.readout_of(instance.input_ids)
    return instance if readout == instance.readout else replace(instance, readout=readout)


def _spoken_of(
    instances: Sequence[Instance], there: Iterable[NDArray[np.int64]], device: torch.device
) -> Spoken | None:
    """What follows the prompts of rows, if that is asked for, of which some positions are there."""
    if not instances[0].of_all:
        return None
    at, ids = [], []
    for instance, kept in zip(instances, there, strict=True):
        assert instance.continuation is not None
        at.append(np.searchsorted(kept, instance.continuation.read))
        ids.append(instance.continuation.ids[instance.continuation.prompt :])
    return Spoken(put(padded(at, 0, np.int64), device), put(padded(ids, -1, np.int64), device))


def _read_of(
    readouts: Sequence[int | None],
    mask: NDArray[np.generic],
    spoken: Spoken | None,
    device: torch.device,
) -> Read:
    """Where rows are read: at their positions, or from means of all that a mask [B, T] shows.

    Of what follows a prompt it is the mean of the positions that its tokens are read from.
    """
    if spoken is not None:
        there = (spoken.ids >= 0).double()
        shares = there / there.sum(1, keepdim=True)
        weights = torch.zeros(mask.shape, dtype=torch.float64, device=device)
        return Read(weights=weights.scatter_add(1, spoken.at, shares))
    if any(readout is None for readout in readouts):
        return Read(weights=put(mask / mask.sum(1, keepdims=True, dtype=np.float64), device))
    return Read(put(np.array(readouts, np.int64), device))


def _lacking(model: Model, instance: Instance) -> str | None:
    """A token or a type that the network has no embedding for."""
    return model.lacks(instance.input_ids, instance.token_types)


def _readouts(laid: Layout, copies: Sequence[Copy]) -> list[int | None]:
    """Where the rows of copies are read."""
    readouts = [instance.readout for instance, _, _ in copies]
    before = laid.before(np.array([at or 0 for at in readouts], np.int64)).tolist()
    return [None if at is None else number for at, number in zip(readouts, before, strict=True)]


# Bags of words ----------------------------------------------------------------------------------


def _bags(instance: Instance) -> NDArray[np.int64]:
    """Number of the bag each token belongs to, in order of first occurrence, -1 for none, [T].

    A bag is all occurrences of one word, in either text. Words are compared as they are written but
    for the punctuation around them; where the text is unknown, by their token ids.
    """
    words = Text().units_of(instance, "word")
    bags: dict[str | tuple[int, ...], int] = {}
    units = np.full(len(instance), -1)
    for word in dict.fromkeys(words[words >= 0].tolist()):
        tokens = words == word
        units[tokens] = bags.setdefault(_spelling(instance, tokens), len(bags))
    return units


def _segments(instance: Instance) -> NDArray[np.int64]:
    """Number of the segment that each token belongs to, of those that can be removed, [T]."""
    units = np.full(len(instance), -1)
    if instance.sources is None:
        return units
    free, count = instance.removable, 0
    for number in range(len(instance.source_kinds)):
        tokens = instance.sources == number
        if tokens.any() and free[tokens].all():
            units[tokens] = count
            count += 1
    return units


def _spelling(instance: Instance, word: Flags) -> str | tuple[int, ...]:
    at = np.flatnonzero(word)
    text = instance.text_pair if instance.segment[at[0]] else instance.text
    if text is None:
        return tuple(instance.input_ids[at].tolist())
    written = text[instance.char_start[at[0]] : instance.char_end[at[-1]]].strip()
    return re.sub(r"^\W+|\W+$", "", written) or written


# Where paths start ------------------------------------------------------------------------------


def _embedded(model: Model, batch: Batch, start: str) -> torch.Tensor:
    """What enters the first layer at the start of a path, [B, T, d]."""
    rows = batch.rows
    if start == "zero":
        entered = model.embed(rows)
        if model.contrastive or model.speaks:
            return entered - _words(model, rows.inputs["input_ids"])
        return torch.zeros_like(entered)
    ids = rows.inputs["input_ids"].masked_fill(batch.moved, _token(model, start))
    noise = rows.noise
    if noise is not None:  # What is replaced has none.
        noise = noise.masked_fill(batch.moved[..., None], 0)
    return model.embed(replace(rows, inputs={**rows.inputs, "input_ids": ids}, noise=noise))


def _words(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """What is looked up for tokens, [..., E], before position and type are added."""
    words = model.embedding.words
    assert words is not None
    embeddings: torch.Tensor = words(ids)
    return embeddings


def _check_token(model: Model, name: str, wish: str, remedy: str) -> None:
    """Checks that the padding, the mask or the unknown token is known, if it is one of these."""
    if name == "pad" and model.pad_id is None:
        raise UsageError(
            f"{wish} needs the model's padding token, which is unknown (pad_token_id in its "
            f"config.json, or its tokenizer's): {remedy}"
        )
    if name == "mask" and model.mask_id is None:
        raise UsageError(
            f"{wish} needs the model's mask token, which is unknown without a tokenizer: name it "
            f"with --mask-token-id, or {remedy}"
        )
    if name == "unk" and _id_of(model, name) is None:
        raise UsageError(f"{wish} needs a tokenizer with a token for the unknown: {remedy}")


def _id_of(model: Model, name: str) -> int | None:
    """The token that ``pad``, ``mask``, ``unk`` or ``id0`` puts in another's place, if known."""
    if name == "unk":
        return None if model.tokenizer is None else model.tokenizer.unk_token_id
    return {"pad": model.pad_id, "mask": model.mask_id, "id0": 0}[name]


def _token(model: Model, name: str) -> int:
    """The same.

    Raises:
        ValueError: If it is unknown.
    """
    token = _id_of(model, name)
    if token is None:
        raise ValueError(f"the model's {name} token is unknown")
    return token
