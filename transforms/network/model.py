"""A frozen transformer that can be looked into: logits out, with or without attention."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call
from transformers import (
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from attribeam.transforms.network.anatomy import Anatomy, Grid, Pooling
from attribeam.transforms.network.borrowed import borrowed, leave_attention
from attribeam.transforms.network.calls import (
    patch_layers,
    patch_patches,
    patch_root_mean_squares,
    patch_rotations,
)
from attribeam.transforms.network.capture import Recorder, Watch, current_recorder, recording
from attribeam.transforms.network.parts import (
    Affine,
    Embedding,
    HeadStep,
    Layer,
    Norm,
    Softcap,
    unit,
)
from attribeam.transforms.network.rows import Rows, Spoken
from attribeam.transforms.network.rules import Rules, following

Task = Literal[
    "classification",
    "masked_lm",
    "causal_lm",
    "continuation",
    "multi_label",
    "regression",
    "token_classification",
    "span",
    "similarity",
]
# What a causal LM's logits are of (``next_tokens``).
NEXT = ("target", "foil", "other", "rest")
FOIL = NEXT.index("foil")
# Tasks whose outputs are values, each asked for by itself, and no classes.
VALUES: tuple[Task, ...] = ("regression", "span", "similarity", "continuation")
# ``post_ln``: all sums in its layers are normalised. ``serial``: its branches are added one after
# the other, each as it is. ``ungated``: its feed-forward parts have no gate. ``products``: scores
# of attention are products of projections alone. ``classes``: outputs are of classes.
# ``position``: what is predicted of a row is read from one position. ``tokens``: rows are of
# tokens, and not of patches. ``lengths``: the head doesn't divide features by their lengths.
# ``layers``: it is known what its layers are. ``looked_up``: its attention is looked up in
# transformers' registry. ``one_sum``: all that its layers give is added up, and the logits are a
# linear map of a norm of that. ``likely``: outputs have probabilities, those of classes or of what
# follows a prompt. ``causal``: positions attend to no later ones.
Trait = Literal[
    "layers",
    "post_ln",
    "serial",
    "ungated",
    "products",
    "classes",
    "probability",
    "position",
    "tokens",
    "lengths",
    "looked_up",
    "one_sum",
    "likely",
    "causal",
]
# Units of a head in nearly all encoders.
_USUAL_HEAD = 64
Whole = NDArray[np.signedinteger[Any]]

_NOTHING = Watch()
# Most logits of all words that are held at a time.
_MOST_LOGITS = 1 << 26


# Keys and values of T positions that each layer holds, [1 or B, G, T, d/H] both.
Past = Sequence[tuple[torch.Tensor, torch.Tensor]]


@dataclass(eq=False)
class Model:
    """A transformer with frozen weights, its anatomy, and its tokenizer if it has one.

    Attributes:
        network: The transformers model. Whatever mode it is in and whatever attention function it
            has, while it runs here it has ours and drops nothing out (``borrowed``).
        anatomy: Where its parts are.
        task: What it predicts: a class of the row, or of each word; any number of labels; one or
            more values; the word at a [MASK]; the next token, or all that follow; where an answer
            starts and ends; or how alike a picture and a text are.
        tokenizer: The fast tokenizer; None if the folder has none (pre-tokenised corpora only).
        mask_id: Vocabulary id of the mask token; None if unknown.
        pad_id: Vocabulary id of the padding token; None if unknown.
        max_length: Most tokens of an instance unless more are asked for, special tokens included:
            the limit that the tokenizer states, if that is less than ``capacity``.
        mixed: Whether the products of matrices in its layers are in bfloat16. Weights, what passes
            from layer to layer, softmaxes, the head and all that is computed from them keep
            ``dtype``.
        no_tokenizer: Where there is none, why, and what to do.
        processor: What makes its input of pictures, if the folder has it.
        mean: Whether a classifier of pictures is read from the mean of patches, whatever its class
            in transformers does.
        prompts: Texts that are the classes of pictures, of a model that compares the two.
        beside: Of a model of pairs, the tower of their texts; it itself is that of pictures.
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
    processor: Any = None
    mean: bool = False
    prompts: tuple[str, ...] | None = None
    beside: "Model | None" = None

    def __post_init__(self) -> None:
        if self.anatomy.own_attention:
            leave_attention(self.network)
        patch_layers(self.layers)
        if self.anatomy.patches is not None:
            patch_patches(attrgetter(self.anatomy.patches)(self.network))
        patch_root_mean_squares(self.network, self.anatomy.norm_shift)
        if self.causal:
            patch_rotations(self.network)
        if self.mixed:
            self._keep_whole()

    def _keep_whole(self) -> None:
        """Lets the linear parts outside of the layers compute in ``dtype``.

        In the head, a row an instance, that costs nothing, and logits near 6 in bfloat16 would be
        multiples of 0.03. What a projection gives is carried on from layer to layer.
        """
        whole = torch.autocast(self.device.type, enabled=False)
        linear = [step.module for step in self.head if isinstance(step, Affine)]
        if self.embedding.projection is not None:
            linear.append(self.embedding.projection.module)
        for module in linear:
            module.forward = whole(module.forward)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of the scores."""
        return self.network.dtype

    @property
    def encoder(self) -> PretrainedConfig:
        """The configuration of its layers."""
        return self.anatomy.encoder(self.network.config)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def num_heads(self) -> int:
        """Number of heads of a layer; 0 where no layer is known."""
        return 0 if self.anatomy.closed else int(self.encoder.num_attention_heads)

    @property
    def hidden_size(self) -> int:
        """Number of units of what passes from layer to layer."""
        return int(self.encoder.hidden_size)

    @property
    def head_size(self) -> int:
        """Hidden size over number of heads; where that is unknown, as most have it."""
        if self.anatomy.closed:
            return _USUAL_HEAD
        return max(1, self.hidden_size // self.num_heads)

    @property
    def vocabulary(self) -> int:
        """Number of tokens that it has embeddings for."""
        return int(self.network.config.vocab_size)

    @property
    def token_types(self) -> int:
        """Number of token types that it tells apart; 1 where it takes none."""
        return max(1, int(self.network.config.type_vocab_size)) if self.anatomy.segments else 1

    @property
    def capacity(self) -> int:
        """Most tokens that it has positions for, special tokens included."""
        config = self.network.config
        if self.grid is not None:
            return self.grid.positions
        positions = getattr(config, "max_position_embeddings", None)
        if positions is None:
            return self.max_length
        return int(positions) - self.anatomy.first_position(config)

    @property
    def num_outputs(self) -> int:
        """Number of logits of an instance.

        They are of the classes, of a masked LM's two words, of a label's absence (zero) and
        presence, or of one value; of a causal LM see ``next_tokens``.
        """
        if self.task in VALUES:
            return 1
        if self.task == "causal_lm":
            return len(NEXT)
        return 2 if self.task in ("masked_lm", "multi_label") else len(self.output_names)

    @property
    def labels(self) -> list[str]:
        """Names of the outputs."""
        kinds = {"masked_lm": ["correct", "wrong"], "multi_label": ["no", "yes"]}
        if self.task == "causal_lm":
            return list(NEXT)
        if self.task in VALUES:
            return self.output_names if len(self.output_names) == 1 else ["value"]
        return kinds.get(self.task) or self.output_names

    @property
    def num_single(self) -> int:
        """Number of logits that are of one output each; a causal LM's last is of many tokens."""
        return self.num_outputs - (self.task == "causal_lm")

    @property
    def output_names(self) -> list[str]:
        """Names of all that the head gives, but for a masked LM's."""
        if self.task == "span":
            return ["start", "end"]
        if self.task in ("similarity", "continuation"):
            return [self.task]
        if self.prompts is not None:
            return list(self.prompts)
        if self.task == "causal_lm":
            return list(NEXT)
        names = {int(index): name for index, name in (self.network.config.id2label or {}).items()}
        count = int(self.network.config.num_labels or 0)
        return [names.get(index, str(index)) for index in range(count)]

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """What the model says of each output, [B, C]: the softmax of logits; values are as is.

        Of all that follows a prompt the value is the logarithm of its probability.
        """
        if self.task == "continuation":
            return logits.exp()
        return logits if self.task in VALUES else logits.softmax(-1)

    @property
    def whole(self) -> PreTrainedModel:
        """The model as transformers has it, of which the network may be a tower."""
        whole: PreTrainedModel = getattr(self.network, "whole", self.network)
        return whole

    @cached_property
    def towers(self) -> dict[str, "Model"]:
        """The models that instances are run by, by their kind of input: of pairs there are two."""
        if self.beside is None:
            return {self.modality: self}
        return {self.modality: replace(self, beside=None), self.beside.modality: self.beside}

    @property
    def speaks(self) -> bool:
        """Whether it is a language model that is asked for what follows a prompt."""
        return self.task in ("causal_lm", "continuation")

    @cached_property
    def of_all(self) -> "Model":
        """The same model, asked how likely all is that follows a prompt, and not each token."""
        return replace(self, task="continuation")

    @property
    def of_texts(self) -> "Model":
        """What takes texts: of pairs their tower."""
        return self.beside or self

    @property
    def contrastive(self) -> bool:
        """Whether features of pictures and of texts are compared, whatever their lengths."""
        return unit in self.head

    @property
    def modality(self) -> str:
        """The kind of input that it takes (``inputs.kinds``)."""
        return self.anatomy.modality

    @cached_property
    def grid(self) -> Grid | None:
        """How pictures are cut up, if it takes these."""
        grid = self.anatomy.grid
        return None if grid is None else grid(self.encoder)

    @cached_property
    def patching(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What makes tokens of patches, [d, C * h * w], and what is added by position, [T, d]."""
        assert self.anatomy.patches is not None and self.anatomy.places is not None
        weight: torch.Tensor = attrgetter(self.anatomy.patches)(self.network).weight
        places: torch.Tensor = attrgetter(self.anatomy.places)(self.network)
        return weight.flatten(1), places[0]

    def kept(self, what: Hashable, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What depends on the weights alone, computed once while these stay as they are.

        Weights that are others now, or that were changed by any operation, are noticed; a change
        of their `.data` in place is not, since torch does not count it: then make a new model.

        Args:
            what: What it is, as nothing else.
            compute: Computes it.
        """
        version = tuple((each.data_ptr(), each._version) for each in self.network.parameters())
        known = self._kept.get(what)
        if known is None or known[0] != version:
            with torch.no_grad():
                known = self._kept[what] = version, compute()
        return known[1]

    @cached_property
    def _kept(self) -> dict[Hashable, tuple[Hashable, torch.Tensor]]:
        """What is kept, and of which version of the weights."""
        return {}

    @property
    def causal(self) -> bool:
        """Whether a position attends to no later one."""
        return self.anatomy.causal

    @cached_property
    def embedding(self) -> Embedding:
        """What is done to words before they enter the first layer."""
        return self.anatomy.embedding_of(self.network)

    @cached_property
    def layers(self) -> list[Layer]:
        """What each layer is made of."""
        return self.anatomy.layers_of(self.network, self.num_heads)

    @property
    def traits(self) -> frozenset[Trait]:
        """What methods may require of it."""
        known = not self.anatomy.closed
        true_of: dict[Trait, bool] = {
            "layers": known,
            "post_ln": known and all(layer.post_ln for layer in self.layers),
            "serial": known and all(layer.serial for layer in self.layers),
            "ungated": known and not any(layer.gated for layer in self.layers),
            "classes": self.task not in VALUES,
            "probability": self.task not in VALUES or self.task == "continuation",
            "position": not self.pools,
            "tokens": self.modality != "images",
            "products": known and not any(layer.attention.moves for layer in self.layers),
            "lengths": not self.contrastive,
            "looked_up": known and all(layer.attention.dropout is None for layer in self.layers),
            "one_sum": known and self._adds_up(),
            "likely": self.task not in VALUES or self.task == "continuation",
            "causal": self.causal,
        }
        return frozenset(trait for trait, holds in true_of.items() if holds)

    def _adds_up(self) -> bool:
        """Whether no norm is between the sums of its layers, and the head is a norm and a map."""
        joins = any(step.join for layer in self.layers for step in layer.steps)
        kinds = [type(step) for step in self.head if not isinstance(step, Softcap)]
        return not joins and kinds == [Norm, Affine]

    @cached_property
    def head(self) -> list[HeadStep]:
        """What turns the hidden state of the position read out into logits, step by step.

        For a language model these are the logits of the whole vocabulary.
        """
        task = "causal_lm" if self.task == "continuation" else self.task
        return self.anatomy.head_of(self.network, task)

    @cached_property
    def end_ids(self) -> list[int]:
        """Tokens that end what a language model says: its tokenizer's, and its configurations'."""
        generation = getattr(self.network, "generation_config", None)
        found: set[int] = set()
        for home in (self.tokenizer, self.network.config, generation):
            ends = getattr(home, "eos_token_id", None)
            found |= set(ends) if isinstance(ends, list) else set() if ends is None else {int(ends)}
        return sorted(found)

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
        return torch.arange(first, first + rows.length, device=rows.device)[None]

    @property
    def pools(self) -> bool:
        """Whether a row's prediction is read from a mean of its positions, or of patches.

        Where all that follows a prompt is asked for, that is of the positions that it is read from.
        """
        if self.task == "continuation":
            return True
        if self.grid is not None:
            return self.pooling != "cls"
        return self.anatomy.pools(self.network.config, self.task)

    @property
    def pooling(self) -> Pooling:
        """Where a classifier of pictures is read."""
        return "mean" if self.mean else self.anatomy.pooling

    def readout_of(self, input_ids: Whole) -> int | None:
        """The position that a classifier reads the prediction from, of ids [T]; None for a mean.

        Encoders read the first token, unless they take the mean of all. Decoders read the last one
        that isn't the padding token of their configuration, as transformers does; those of texts
        that are compared with pictures the end token.
        """
        if self.pools:
            return None
        if self.anatomy.end is not None:
            end = self.anatomy.end(self.network.config, input_ids)
            return len(input_ids) - 1 if end is None else end
        if not self.causal:
            return 0
        if self.task == "causal_lm":
            return len(input_ids) - 1
        pad = self.network.config.pad_token_id
        texts = np.flatnonzero(input_ids != pad) if pad is not None else np.arange(len(input_ids))
        return int(texts[-1]) if len(texts) else 0

    def embed(
        self, rows: Rows, words: torch.Tensor | None = None, *, exact: bool = False
    ) -> torch.Tensor:
        """What enters the first layer for these rows (``hidden_states[0]``), [B, T, d].

        Args:
            rows: The rows.
            words: Embeddings in place of those of the rows' tokens, [B, T, E].
            exact: In float64, which what the rows hold has to be in.

        Of a network that nothing is known inside of it is what it is fed: pixels, [B, C, H, W].
        """
        if self.anatomy.closed:
            return rows.inputs["pixel_values"]
        recorder = Recorder(
            self.layers, _NOTHING, rows.read, self.dtype, start=self.num_layers, noise=rows.noise
        )
        inputs = self._inputs(rows)
        if words is not None:
            inputs["inputs_embeds"] = words
            inputs.pop("input_ids", None)
        with borrowed(self.network), recording(recorder):
            functional_call(self.network.base_model, self._exact() if exact else {}, (), inputs)
        assert recorder.entered is not None
        return recorder.entered

    def _exact(self) -> dict[str, torch.Tensor]:
        """Weights outside of the layers in float64, by their names in the network."""
        inside = {id(weight) for layer in self.layers for weight in layer.module.parameters()}
        named = self.network.base_model.named_parameters()
        return {name: weight.double() for name, weight in named if id(weight) not in inside}

    def _inputs(self, rows: Rows) -> dict[str, Any]:
        """What the network is called with."""
        inputs: dict[str, Any] = {**rows.inputs}
        if self.anatomy.masks == "flags":
            inputs["attention_mask"] = rows.attention_mask
        elif self.anatomy.masks == "scores":
            hidden = rows.attention_mask[:, None, None] == 0
            scores = torch.zeros_like(hidden, dtype=self.dtype)
            # A finite number, in whatever type products are: of a row without any token, too.
            inputs["attention_mask"] = scores.masked_fill(hidden, torch.finfo(torch.bfloat16).min)
        if self.grid is None:
            inputs["position_ids"] = self.positions(rows)
        if self.causal:
            inputs["use_cache"] = False
        return inputs

    def run(
        self,
        rows: Rows,
        *,
        watch: Watch = _NOTHING,
        enter: torch.Tensor | None = None,
        start: int = 0,
        leaving: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
        rules: Rules | None = None,
        past: Past = (),
    ) -> tuple[torch.Tensor, Recorder]:
        """Runs the model once.

        Args:
            rows: B padded rows.
            watch: What to look at.
            enter: Replaces what enters a layer, [B, T, d].
            start: The layer that it enters, 0-based; those below it are not run. With the number of
                layers it enters the head, and nothing but that is run; [B, 1, d] will do then, of
                the position that is read.
            leaving: What is done to what leaves a layer, [B, T, d] (of the last one [B, 1, d], as
                the position read out is alone), of the layer's number.
            rules: What gradients are to pass the layers and the head by, in place of derivatives;
                not together with ``start``.
            past: What each layer of a causal model holds of the positions before the rows, which
                are not run again.

        Returns:
            Logits [B, C] (C = 2 for a masked LM: the correct and the wrong word at the [MASK]) and
            the recorder.

        Raises:
            RuntimeError: If attention was to be kept and a layer's attention never came by.
        """
        if self.anatomy.closed:
            return self._run_closed(rows, enter)
        recorder = Recorder(
            self.layers,
            watch,
            rows.read,
            self.dtype,
            enter,
            start,
            leaving,
            rules,
            rows.noise,
            rows.spoken,
            within=self._lent,
        )
        with self._lent(), recording(recorder), self._following(rules):
            if enter is not None and start == self.num_layers:
                recorder.leave(enter)
            else:
                self.network.base_model(**self._inputs(rows) | _remembered(rows, past))
            assert recorder.left is not None
            asked = rows
            if recorder.gathered:
                asked = rows.read_apart
            logits = self.logits_of(recorder.left, asked, rules)
        if watch.attention and len(recorder.attention) != self.num_layers - start:
            raise RuntimeError(
                f"{len(recorder.attention)} of {self.num_layers} layers of "
                f"{type(self.network).__name__} passed through the attention hook"
            )
        return logits.to(self.dtype), recorder

    @torch.no_grad()
    def past_of(self, rows: Rows) -> Past:
        """Keys and values that each layer of a causal model holds of rows."""
        cache = DynamicCache()
        inputs = self._inputs(rows) | {"past_key_values": cache, "use_cache": True}
        with borrowed(self.network), self.autocast():
            self.network.base_model(**inputs)
        layers: Sequence[Any] = cache.layers
        return [(layer.keys, layer.values) for layer in layers]

    def _run_closed(self, rows: Rows, pixels: torch.Tensor | None) -> tuple[torch.Tensor, Recorder]:
        """As ``run``, of a network that nothing is known inside of; pixels may be replaced."""
        if pixels is not None:
            rows = replace(rows, inputs={**rows.inputs, "pixel_values": pixels})
        recorder = Recorder((), _NOTHING, rows.read, self.dtype)
        recorder.entered = rows.inputs["pixel_values"]
        return _asked(self._theirs(rows).logits, rows.outputs).to(self.dtype), recorder

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """For its duration the network is as it has to be, and computes in the types it is to."""
        with borrowed(self.network), self.autocast():
            yield

    def autocast(self) -> torch.autocast:
        """Under it products of matrices are in bfloat16, if they are to be."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def _following(self, rules: Rules | None) -> AbstractContextManager[None]:
        """Under it the layers follow rules, in the run that is under way in this thread."""
        if rules is None:
            return nullcontext()
        recorder = current_recorder()

        def current() -> bool:
            # What is done for what is read alone follows rules without being told.
            return current_recorder() is recorder and not (recorder is None or recorder.ended)

        return following(rules, self.layers, current)

    def logits_of(self, left: torch.Tensor, rows: Rows, rules: Rules | None = None) -> torch.Tensor:
        """What the head makes of what left the last layer, [B, T, d], or [B, 1, d] of one position.

        Returns:
            Logits of what is read, [Q, C]; of models that compare features, with nothing that these
            are compared with, features of a length of 1, [Q, n]; of causal LMs that are asked for
            no words, logits of all of them, [Q, V]; where distributions are compared, two columns
            more (``compared_distributions``).
        """
        self.check_asked(rows)
        steps = list(self.head) if rules is None else list(map(rules.step, self.head))
        if rows.spoken is not None:
            return spoken_log_probs(left, steps, rows.spoken)
        state, rest = self._read(left, rows, steps)
        if self.task == "causal_lm" and rows.outputs is not None:
            # Logits of all words are many more than what is kept of them.
            some = max(1, _MOST_LOGITS // self.vocabulary)
            parts = torch.arange(len(state), device=state.device).split(some)
            return torch.cat([self._of_words(state[part], rows, part, rest) for part in parts])
        return self._asked(_compared(_through(rest, state), rows.against), rows.outputs)

    def _read(
        self, left: torch.Tensor, rows: Rows, steps: Sequence[HeadStep]
    ) -> tuple[torch.Tensor, Sequence[HeadStep]]:
        """What is read of what left the last layer, [Q, d], and the steps that are left then."""
        if rows.read.alone and left.shape[1] == 1:
            return left[:, 0], steps
        if rows.read.at is None:
            left = _through(steps[: self.anatomy.spread], left)
            steps = steps[self.anatomy.spread :]
        return rows.read.gather(left), steps

    def states_of(self, recorder: Recorder, rows: Rows) -> torch.Tensor:
        """What the head of a language model read of rows that were run, [Q, d]."""
        assert recorder.left is not None
        asked = rows.read_apart if recorder.gathered else rows
        return self._read(recorder.left, asked, self.head)[0]

    def _of_words(
        self, state: torch.Tensor, rows: Rows, part: torch.Tensor, steps: Sequence[HeadStep]
    ) -> torch.Tensor:
        """What is kept of the logits of all words: of some of what rows ask for, by number."""
        assert rows.outputs is not None
        logits = _through(steps, state)
        kept = next_tokens(logits, rows.outputs[part])
        if rows.beside is None:
            return kept
        states, of = rows.beside.states, rows.beside.of
        others = None
        if states is not None and of is not None:
            numbers, place = of[part].unique(return_inverse=True)
            others = _through(steps, states[numbers].to(state))[place]
        return torch.cat([kept, compared_distributions(logits, others).to(kept)], 1)

    def _asked(self, logits: torch.Tensor, outputs: torch.Tensor | None) -> torch.Tensor:
        """What is asked for of all logits there are, [Q, N] to [Q, C]."""
        if self.task == "causal_lm" and outputs is not None:
            return next_tokens(logits, outputs)
        return _asked(logits, outputs)

    def check_asked(self, rows: Rows) -> None:
        """Checks that rows of a masked LM ask for two words.

        Raises:
            ValueError: If they don't.
        """
        if self.task == "masked_lm" and rows.outputs is None:
            raise ValueError("rows of a masked_lm model say which two outputs are asked for")

    @torch.no_grad()
    def run_whole(self, rows: Rows) -> torch.Tensor:
        """What transformers' own code makes of rows, head and all: what ``run`` should give."""
        logits = self.logits_of_tokens(rows) if self.task == "span" else self._theirs(rows).logits
        if self.task in ("masked_lm", "causal_lm", "token_classification", "span"):
            logits = rows.read.of(logits)
        return self._asked(_compared(logits, rows.against), rows.outputs)

    @torch.no_grad()
    def logits_of_tokens(self, rows: Rows) -> torch.Tensor:
        """Of each token how much an answer starts or ends there, [B, T, 2]."""
        given = self._theirs(rows)
        return torch.stack([given.start_logits, given.end_logits], -1)

    def _theirs(self, rows: Rows) -> Any:
        """What transformers' own code gives."""
        with borrowed(self.network), self.autocast():
            return self.network(**self._inputs(rows))


def _through(steps: Sequence[HeadStep], state: torch.Tensor) -> torch.Tensor:
    """What steps of a head make of a state, one after the other."""
    for step in steps:
        state = step(state)
    return state


def _remembered(rows: Rows, past: Past) -> dict[str, Any]:
    """What a network is called with where it holds some positions before rows already."""
    if not past:
        return {}
    cache, count = DynamicCache(), len(rows)
    for number, (keys, values) in enumerate(past):
        cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), number)
    before = rows.attention_mask.new_ones(count, past[0][0].shape[2])
    mask = torch.cat([before, rows.attention_mask], 1)
    return {"past_key_values": cache, "use_cache": True, "attention_mask": mask}


def _compared(features: torch.Tensor, against: torch.Tensor | None) -> torch.Tensor:
    """How alike features are to others, [Q, 1] of twice [Q, n]; as they are without others."""
    return features if against is None else (features * against).sum(-1, keepdim=True)


def _asked(logits: torch.Tensor, outputs: torch.Tensor | None) -> torch.Tensor:
    """The logits that are asked for, by number, [B, K]; zero for -1."""
    if outputs is None:
        return logits
    chosen = logits.gather(1, outputs.clamp(min=0))
    return chosen.masked_fill(outputs < 0, 0)


def spoken_log_probs(
    hidden: torch.Tensor, steps: Sequence[HeadStep], spoken: Spoken
) -> torch.Tensor:
    """Sums of the log-probabilities of tokens that follow one another, [B, 1].

    Args:
        hidden: What left the last layer, [B, T, d].
        steps: What makes logits of that.
        spoken: The tokens.
    """
    state = spoken.of(hidden)
    for step in steps:
        state = step(state)
    log_probs = state.log_softmax(-1).gather(-1, spoken.ids.clamp(min=0)[..., None])[..., 0]
    return log_probs.masked_fill(spoken.ids < 0, 0).sum(1, keepdim=True)


def next_tokens(logits: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """What is kept of the logits of all tokens: of two of them, and what the others add up to.

    Args:
        logits: [Q, V].
        asked: Ids of the target and of what it is compared with, [Q, 2].

    Returns:
        [Q, 4]: the logit of the target, that of the foil, the largest of all others, and the
        logarithm of the sum of exp(logit) over the rest. Their softmax is that of all tokens.
    """
    chosen = logits.gather(1, asked)
    others = logits.scatter(1, asked, -torch.inf)
    largest, at = others.max(1, keepdim=True)
    rest = others.scatter(1, at, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([chosen, largest, rest], 1)


def compared_distributions(logits: torch.Tensor, others: torch.Tensor | None) -> torch.Tensor:
    """Entropies of distributions, and how far each is from another, both in nats: [Q, 2].

    Args:
        logits: Logits of all outputs, [Q, V].
        others: Those of what they are compared with, [Q, V]; None for themselves.

    Returns:
        Of the softmax p of each row and q of the other: -sum p ln p, and the Kullback-Leibler
        divergence sum p ln(p / q), which is 0 for themselves.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    logs = wide.log_softmax(-1)
    shares = logs.exp()
    # A logit of minus infinity has no share, and no logarithm to speak of.
    entropy = torch.special.entr(shares).sum(-1)
    if others is None:
        return torch.stack([entropy, torch.zeros_like(entropy)], 1)
    apart = (logs - others.to(wide).log_softmax(-1)).masked_fill(shares == 0, 0)
    return torch.stack([entropy, (shares * apart).sum(-1).clamp(min=0)], 1)
