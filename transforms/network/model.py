"""A frozen transformer that can be looked into: logits out, with or without attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from attribeam.transforms.network.anatomy import Anatomy, optional_part, part
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.capture import Recorder, Watch, recording
from attribeam.transforms.network.parts import Affine, HeadStep, Layer
from attribeam.transforms.network.readout import patch_last_layer
from attribeam.transforms.network.rows import Rows

Task = Literal["classification", "masked_lm"]
# ``post_ln``: all sums in its layers are normalised. ``serial``: its branches are added one after
# the other, each as it is. ``ungated``: its feed-forward parts have no gate. ``products``: scores
# of attention are products of projections alone.
Trait = Literal["post_ln", "serial", "ungated", "products"]
Whole = NDArray[np.signedinteger[Any]]

_NOTHING = Watch()


@dataclass(eq=False)
class Model:
    """A transformer with frozen weights, its anatomy, and its tokenizer if it has one.

    Attributes:
        network: The transformers model. Whatever mode it is in and whatever attention function it
            has, while it runs here it has ours and drops nothing out (``borrowed``).
        anatomy: Where its parts are.
        task: What it predicts: a class, or the word at a [MASK].
        tokenizer: The fast tokenizer; None if the folder has none (pre-tokenised corpora only).
        mask_id: Vocabulary id of the mask token; None if unknown.
        pad_id: Vocabulary id of the padding token; None if unknown.
        max_length: Most tokens of an instance unless more are asked for, special tokens included:
            the limit that the tokenizer states, if that is less than ``capacity``.
        mixed: Whether the products of matrices in its layers are in bfloat16. Weights, what passes
            from layer to layer, softmaxes, the head and all that is computed from them keep
            ``dtype``.
        no_tokenizer: Where there is none, why, and what to do.
    """

    network: PreTrainedModel
    anatomy: Anatomy
    task: Task
    tokenizer: PreTrainedTokenizerFast | None
    mask_id: int | None
    pad_id: int | None
    max_length: int
    mixed: bool = False
    no_tokenizer: str = "the model's folder has no tokenizer, so the corpus must hold input_ids"

    def __post_init__(self) -> None:
        patch_last_layer(self.layers[-1])
        if self.mixed:
            self._keep_whole()

    def _keep_whole(self) -> None:
        """Lets the linear parts outside of the layers compute in ``dtype``.

        In the head, a row an instance, that costs nothing, and logits near 6 in bfloat16 would be
        multiples of 0.03. What a projection gives is carried on from layer to layer.
        """
        whole = torch.autocast(self.device.type, enabled=False)
        projection = optional_part(self.network, self.anatomy.projection)
        linear = [step.module for step in self.head if isinstance(step, Affine)]
        for module in (projection, *linear):
            if isinstance(module, nn.Linear):
                module.forward = whole(module.forward)  # type: ignore[method-assign]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of the scores."""
        return self.network.dtype

    @property
    def num_layers(self) -> int:
        """Number of encoder layers."""
        return int(self.network.config.num_hidden_layers)

    @property
    def num_heads(self) -> int:
        """Number of heads of a layer."""
        return int(self.network.config.num_attention_heads)

    @property
    def hidden_size(self) -> int:
        """Number of units of what passes from layer to layer."""
        return int(self.network.config.hidden_size)

    @property
    def head_size(self) -> int:
        """Hidden size over number of heads."""
        return max(1, self.hidden_size // self.num_heads)

    @property
    def vocabulary(self) -> int:
        """Number of tokens that it has embeddings for."""
        return int(self.network.config.vocab_size)

    @property
    def token_types(self) -> int:
        """Number of token types that it tells apart; 1 where it takes none."""
        return int(self.network.config.type_vocab_size) if self.anatomy.segments else 1

    @property
    def capacity(self) -> int:
        """Most tokens that it has positions for, special tokens included."""
        config = self.network.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions is None:
            return self.max_length
        return int(positions) - self.anatomy.first_position(config)

    @property
    def num_outputs(self) -> int:
        """Number of logits: the classes, or two for a masked LM (the correct and wrong word)."""
        return 2 if self.task == "masked_lm" else int(self.network.config.num_labels or 0)

    @property
    def labels(self) -> list[str]:
        """Names of the outputs."""
        if self.task == "masked_lm":
            return ["correct", "wrong"]
        names = {int(index): name for index, name in (self.network.config.id2label or {}).items()}
        return [names.get(index, str(index)) for index in range(self.num_outputs)]

    @property
    def causal(self) -> bool:
        """Whether a position attends to no later one."""
        return self.anatomy.causal

    @property
    def encoder(self) -> nn.Module:
        """The encoder module."""
        return part(self.network, self.anatomy.encoder)

    @cached_property
    def layers(self) -> list[Layer]:
        """What each encoder layer is made of."""
        return self.anatomy.layers_of(self.network, self.num_heads)

    @property
    def traits(self) -> frozenset[Trait]:
        """What methods may require of it."""
        true_of: dict[Trait, bool] = {
            "post_ln": all(layer.post_ln for layer in self.layers),
            "serial": all(layer.serial for layer in self.layers),
            "ungated": all(layer.feed_forward.gate is None for layer in self.layers),
            "products": not any(layer.attention.moves for layer in self.layers),
        }
        return frozenset(trait for trait, holds in true_of.items() if holds)

    @cached_property
    def head(self) -> list[HeadStep]:
        """What turns the hidden state of the position read out into logits, step by step.

        For a masked LM these are the logits of the whole vocabulary.
        """
        return self.anatomy.head_of(self.network, self.task)

    def lacks(self, input_ids: Whole, token_types: Whole) -> str | None:
        """What an instance looks up and the network has no embedding for; None if it has all.

        A GPU that is asked for such a row does nothing more for this process.
        """
        types = self.token_types
        for token in input_ids[(input_ids < 0) | (input_ids >= self.vocabulary)].tolist():
            return f"{self.named(token)} is outside the model's vocabulary ({self.vocabulary})"
        for kind in token_types[(token_types < 0) | (token_types >= types)].tolist():
            if types > 1:
                return f"the token type {kind} is none of the model's (0 to {types - 1})"
        return None

    def named(self, token: int) -> str:
        """A token as messages name it."""
        if self.tokenizer is None or not 0 <= token < len(self.tokenizer):
            return f"id {token}"
        return f"token {self.tokenizer.convert_ids_to_tokens(token)!r} (id {token})"

    def positions(self, rows: Rows) -> torch.Tensor:
        """Position ids of the rows, [1, T] or [B, T].

        They are always given to the model: RoBERTa would otherwise derive them from the ids, and a
        token that is replaced by padding would shift all that follow it.
        """
        if rows.position_ids is not None:
            return rows.position_ids
        first = self.anatomy.first_position(self.network.config)
        length = rows.input_ids.shape[1]
        return torch.arange(first, first + length, device=rows.input_ids.device)[None]

    def embed(self, rows: Rows) -> torch.Tensor:
        """What enters the encoder for these rows (``hidden_states[0]``), [B, T, d].

        That is the sum of word, position and type embeddings after their layer norm, and after
        ELECTRA's projection.
        """
        inputs = {"input_ids": rows.input_ids, "position_ids": self.positions(rows)}
        if self.token_types > 1:
            inputs["token_type_ids"] = rows.token_types
        with borrowed(self.network):
            embedded: torch.Tensor = part(self.network, self.anatomy.embeddings)(**inputs)
            projection = optional_part(self.network, self.anatomy.projection)
            return embedded if projection is None else projection(embedded)

    def run(
        self, rows: Rows, *, watch: Watch = _NOTHING, enter: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Recorder]:
        """Runs the model once.

        Args:
            rows: B padded rows.
            watch: What to look at.
            enter: Replaces what enters the encoder, [B, T, d].

        Returns:
            Logits [B, C] (C = 2 for a masked LM: the correct and the wrong word at the [MASK]) and
            the recorder.

        Raises:
            RuntimeError: If attention was to be kept and a layer's attention never came by.
        """
        inputs = {
            "input_ids": rows.input_ids,
            "attention_mask": rows.attention_mask,
            "position_ids": self.positions(rows),
        }
        if self.token_types > 1:
            inputs["token_type_ids"] = rows.token_types
        readout = None if watch.whole else rows.readout
        layers = self.layers if watch.layers or watch.outputs else ()
        with (
            borrowed(self.network),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed),
            recording(
                self.encoder,
                layers,
                watch=watch,
                dtype=self.dtype,
                readout=readout,
                enter=enter,
            ) as recorder,
        ):
            if self.task == "masked_lm":
                logits = self._contrast_logits(inputs, rows)
            else:
                logits = self.network(**inputs).logits
        if watch.attention and len(recorder.attention) != self.num_layers:
            raise RuntimeError(
                f"{len(recorder.attention)} of {self.num_layers} layers of "
                f"{type(self.network).__name__} passed through the attention hook"
            )
        return logits.to(self.dtype), recorder

    @contextmanager
    def above(self, layer: int) -> Iterator[None]:
        """For its duration the model has only the layers above one of them (0-based).

        What ``run`` is then given as ``enter`` stands for the output of that layer. Nothing can be
        watched meanwhile: the layers that are looked at are those of the whole model.
        """
        every = getattr(self.encoder, self.anatomy.layers)
        setattr(self.encoder, self.anatomy.layers, every[layer + 1 :])
        try:
            yield
        finally:
            setattr(self.encoder, self.anatomy.layers, every)

    def _contrast_logits(self, inputs: dict[str, torch.Tensor], rows: Rows) -> torch.Tensor:
        """Logits of the two contrast words at the [MASK], [B, 2].

        The head is given that position alone: over all of them it would cost more than the encoder.
        """
        if rows.contrast is None:
            raise ValueError(
                "a masked LM is explained by a contrast of two words; the rows have none"
            )
        every = torch.arange(len(rows.readout), device=rows.readout.device)

        def at_readout(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            if args[0].shape[1] == 1:  # The last layer was run for that position alone.
                return args
            return (args[0][every, rows.readout][:, None], *args[1:])

        head = part(self.network, self.anatomy.masked_lm_head)
        handle = head.register_forward_pre_hook(at_readout)
        try:
            vocabulary: torch.Tensor = self.network(**inputs).logits
        finally:
            handle.remove()
        return vocabulary[:, 0].gather(1, rows.contrast)
