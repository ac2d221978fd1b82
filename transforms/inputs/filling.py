"""What a masked LM puts in the place of tokens that are removed (operation ``impute``).

A classifier has seldom seen inputs with mask tokens in them, so that what it says of these may be
about the masks (Kim et al. 2020, input marginalisation; Harbecke & Alt 2020). Here a masked LM is
run once on each copy with its own mask token in the removed places, and each place is filled by a
token that is drawn from what it says there, places by themselves, several times over.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Flags, Instance, pack, put
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Read
from attribeam.transforms.recovery import halving

# Of the most numbers that are held at a time: eight bytes for each token of the vocabulary.
_MOST = 1 << 23


class Filling:
    """Copies that a masked LM fills; those that are asked for more than once are filled once.

    Attributes:
        filled: Per copy the instances that are drawn, or what went wrong, once run.
    """

    def __init__(self, imputer: Model, draws: int, seed: int) -> None:
        self._imputer, self._draws, self._seed = imputer, draws, seed
        self._kind = inputs_of(imputer)
        self._copies: list[tuple[Instance, bytes]] = []
        self._numbers: dict[tuple[int, bytes], int] = {}
        self.filled: list[list[Instance] | Exception] = []

    def add(self, instance: Instance, removed: Flags) -> int:
        """Number of a copy in which some tokens, [T], are to be filled."""
        key = id(instance), np.packbits(removed).tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self._copies)
            self._copies.append((instance, key[1]))
        return self._numbers[key]

    def run(self, token_budget: int) -> None:
        """Fills all copies, packed by length across instances."""
        found: dict[int, list[Instance] | Exception] = {}
        fitting = []
        for number, (instance, _) in enumerate(self._copies):
            fault = self._kind.fault(self._imputer, instance)
            if fault is None:
                fitting.append(number)
            else:
                found[number] = ValueError(f"the masked LM that fills it can't take it: {fault}")
        lengths = [len(self._copies[number][0]) for number in fitting]
        budget = min(token_budget, max(1, _MOST // len(self._vocabulary)))
        with borrowed(self._imputer.network):
            for batch in pack(lengths, budget, self._imputer.head_size):
                for part, filled in halving(self._fill, [fitting[at] for at in batch]):
                    if isinstance(filled, Exception):
                        found[part[0]] = filled
                    else:
                        found |= dict(zip(part, filled, strict=True))
        self.filled = [found[number] for number in range(len(self._copies))]

    @cached_property
    def _vocabulary(self) -> Flags:
        """Whether each word of the masked LM may stand in a text, [V]: special ones may not."""
        tokenizer = self._imputer.tokenizer
        assert tokenizer is not None  # As ``check_imputer`` has seen to.
        allowed = np.zeros(int(self._imputer.network.config.vocab_size), bool)
        allowed[: len(tokenizer)] = True
        allowed[tokenizer.all_special_ids] = False
        return allowed

    def _fill(self, numbers: Sequence[int]) -> list[list[Instance]]:
        """The draws of some copies."""
        copies = []
        for number in numbers:
            instance, bits = self._copies[number]
            flags = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(instance))
            copies.append((instance, flags.astype(bool)))
        places = [np.flatnonzero(removed) for _, removed in copies]
        drawn = self._drawn(copies, places)
        found, start = [], 0
        for (instance, _), own in zip(copies, places, strict=True):
            words = drawn[start : start + len(own)]
            start += len(own)
            draws = []
            for draw in range(self._draws):
                ids = instance.input_ids.copy()
                ids[own] = words[:, draw]
                draws.append(replace(instance, input_ids=ids))
            found.append(draws)
        return found

    @torch.no_grad()
    def _drawn(
        self, copies: Sequence[tuple[Instance, Flags]], places: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """Words at all removed places of copies, one after the other, [Q, draws].

        A place has the same random number in every copy of an instance, so that curves of methods
        differ by what is removed alone.
        """
        model = self._imputer
        rows = self._kind.perturbed(model, [(one, "mask", removed) for one, removed in copies])
        row = np.repeat(np.arange(len(copies)), [len(own) for own in places])
        read = Read(put(np.concatenate(places), model.device), row=put(row, model.device))
        allowed = put(self._vocabulary, model.device)
        every = torch.arange(len(allowed), device=model.device).expand(len(row), -1)
        logits = model.run(replace(rows, read=read, outputs=every, against=None))[0].double()
        shares = logits.masked_fill(~allowed, -torch.inf).softmax(-1).cumsum(-1)
        numbers = np.concatenate(
            [
                one.generator(self._seed, "impute").random((len(one), self._draws))[own]
                for (one, _), own in zip(copies, places, strict=True)
            ]
        )
        wanted = put(numbers, model.device) * shares[:, -1:]
        # The first whose share is above: none has that which can't be drawn.
        words = torch.searchsorted(shares.contiguous(), wanted.contiguous(), right=True)
        found: NDArray[np.int64] = words.clamp(max=shares.shape[-1] - 1).cpu().numpy()
        return found


def check_imputer(imputer: Model, model: Model, name: str) -> None:
    """Checks that a model can fill what is removed from another one's texts.

    Args:
        imputer: What is to fill it.
        model: What is explained.
        name: What the imputer is called.

    Raises:
        UsageError: If it is no masked LM, or their tokenizers have other words.
    """
    wish = f"--imputer {name}"
    if imputer.task != "masked_lm":
        raise UsageError(
            f"{wish} is a {imputer.task} model, and what is removed is filled by a masked LM: name "
            "one of the same tokenizer, such as what the model was fine-tuned from"
        )
    ours, theirs = model.tokenizer, imputer.tokenizer
    if ours is None or theirs is None:
        lacking = "it" if theirs is None else "the model that is explained"
        raise UsageError(
            f"{wish}: {lacking} has no tokenizer, so that nobody knows whether they mean the same "
            "by their ids: put the tokenizer's files beside the weights, or use --operations mask"
        )
    own, other = ours.get_vocab(), theirs.get_vocab()
    if own != other:
        first = min({*own.items()} ^ {*other.items()}, key=lambda pair: (pair[1], pair[0]))
        raise UsageError(
            f"{wish} has another tokenizer than the model ({len(other)} and {len(own)} words; the "
            f"first that isn't the same is {first[0]!r}, {first[1]}): name a masked LM of the same"
        )
    if imputer.mask_id is None:
        raise UsageError(f"{wish} has no mask token: name a masked LM that has one")
