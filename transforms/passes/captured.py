"""What passes over a batch captured: each is run when it is first read, and kept."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any, TypeVar

import torch

from attribeam.transforms.inputs.batch import Batch
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.targets import Explained, Output, Scalar, parse_explain
from attribeam.transforms.network.capture import LayerStates, Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Pass, Target, Wish
from attribeam.transforms.passes.bottleneck import Statistics
from attribeam.transforms.passes.forward import Backward, Forward

Result = TypeVar("Result")


@dataclass(frozen=True)
class Seen:
    """What a run of the model left of n rows of T positions.

    Attributes:
        entered: What entered the first layer, [n, T, d].
        attention: Attention probabilities per layer, each [n, H, T, T]; zero at padded keys.
        layers: What passed through each layer.
        outputs: What came out of each layer, [n, T, d].
    """

    entered: torch.Tensor
    attention: list[torch.Tensor]
    layers: list[LayerStates]
    outputs: list[torch.Tensor]


@dataclass
class Captured:
    """A batch, and what the passes over it captured; the passes are run when first read.

    Attributes:
        model: The model.
        batch: The batch, B instances of at most T tokens.
        target: Rule for the class to explain (``targets.parse_target``).
        budget: Token budget for the extra rows of passes that add rows.
        seed: Seed of the run.
        needs: The passes that the chosen methods need.
        layered: Whether methods are to give their scores layer by layer as well.
        pixels: Whether methods are to give their scores by pixel as well, where they have them.
        statistics: Those of the corpus, if a method needs them.
        scalar: Which scalar of the class is explained; None for what models of its kind are
            explained by (``targets.parse_explain``).
        seconds: Wall time per pass that was run, by what it shares (``Pass.shared``).
        logits: Logits, [B, C].
        question: What is explained of each instance.
        inputs: What one run of the model left, of each input once.
        gradient: Gradient with respect to what is fed, by position, [B, T, n].
        fed: What that is: what enters the first layer; of pictures, the pixels of each patch.
        attention_gradient: Gradient with respect to each layer's attention; at padding it need not
            be zero.
    """

    model: Model
    batch: Batch
    target: str | int
    budget: int
    seed: int
    needs: frozenset[Wish]
    layered: bool = False
    pixels: bool = False
    statistics: Statistics | None = None
    scalar: Scalar | None = None
    seconds: dict[Hashable, float] = field(default_factory=dict)
    logits: torch.Tensor = field(init=False)
    question: Explained = field(init=False)
    inputs: Seen = field(init=False)
    gradient: torch.Tensor | None = field(init=False, default=None)
    fed: torch.Tensor | None = field(init=False, default=None)
    attention_gradient: list[torch.Tensor] = field(init=False, default_factory=list)
    _results: dict[Hashable, tuple[frozenset[Wish], Any]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._run_base()

    @property
    def weights(self) -> torch.Tensor:
        """Weights that turn logits into the explained scalar, if it is a sum of them.

        They are of all C outputs, [B, C], or of the K that are asked for, [B, K].
        """
        weights = self.question.weights(self.logits)
        outputs = self.batch.rows.outputs
        # Of a causal LM's logits the last are of other tokens than the two that are asked for.
        return weights if outputs is None else weights[:, : outputs.shape[1]]

    @property
    def targets(self) -> torch.Tensor:
        """Class explained per instance, [B]."""
        return self.question.targets

    @property
    def explained(self) -> torch.Tensor:
        """The explained scalar per instance, [B]."""
        return self.question(self.logits)

    def output(self, logits: torch.Tensor, kind: Output) -> torch.Tensor:
        """An output of n copies of the batch, one after the other: logits [n B, C] to [n B]."""
        count = len(logits) // len(self.batch)
        return self.question.repeated(count).output(logits, kind)

    @property
    def mask(self) -> torch.Tensor:
        """True for tokens, False for padding, [B, T]."""
        return self.batch.rows.attention_mask.bool()

    def at_readout(self, matrix: torch.Tensor) -> torch.Tensor:
        """The row of each instance's readout position: [B, ..., T, x] to [B, ..., x].

        Of [B, ..., 1, x] it is the one that is there; of instances that are read from a mean it is
        the mean of rows.
        """
        read = self.batch.rows.read
        if matrix.shape[-2] == 1 and read.at is not None:
            return matrix.squeeze(-2)
        return read.of(matrix.transpose(1, -2))

    def asked(self, of_inputs: torch.Tensor) -> torch.Tensor:
        """What inputs have, [n, ...], as each question about them has it, [B, ...]."""
        row = self.batch.inputs.read.row
        return of_inputs if row is None else of_inputs[row]

    @cached_property
    def entered(self) -> torch.Tensor:
        """What entered the first layer, [B, T, d]."""
        return self.asked(self.inputs.entered)

    @cached_property
    def attention(self) -> list[torch.Tensor]:
        """Attention probabilities per layer, each [B, H, T, T]; zero at padded keys."""
        return [self.asked(layer) for layer in self.inputs.attention]

    @cached_property
    def layers(self) -> list[LayerStates]:
        """What passed through each layer."""
        return [
            LayerStates(self.asked(x.entered), self.asked(x.values), tuple(map(self.asked, x.sums)))
            for x in self.inputs.layers
        ]

    @cached_property
    def outputs(self) -> list[torch.Tensor]:
        """What came out of each layer, [B, T, d]."""
        return [self.asked(layer) for layer in self.inputs.outputs]

    def _run_base(self) -> None:
        """The real inputs, once: forward, and backward if a method asked for gradients."""
        start = self.clock()
        of_input, of_attention = Backward() in self.needs, Backward("attention") in self.needs
        rows, graph = self.batch.inputs, of_input or of_attention
        kind, leaf, entered = inputs_of(self.model), None, None
        with torch.set_grad_enabled(graph):
            if graph:  # Gradients of attention need one from the first layer's attention on.
                leaf, enter = kind.leaf(self.model, rows)
                leaf = leaf.detach().requires_grad_()
                entered = enter(rows, leaf)
            logits, recorder = self.model.run(rows, watch=self._watch(), enter=entered)
            self.logits = logits.detach()
            self._spent(Forward(), start)
            self.question = self._question(self.target)
            if leaf is not None:
                wanted = [leaf] * of_input + recorder.attention * of_attention
                found = self.gradients(self.question(logits), wanted)
                if of_input:
                    self.gradient = kind.vectors(self.model, found[0])
                    self.fed = self.asked(kind.vectors(self.model, leaf.detach()))
                self.attention_gradient = list(found[of_input:])
                self._spent(Backward(), start)
        assert recorder.entered is not None
        self.inputs = Seen(
            entered=recorder.entered.detach(),
            attention=[layer.detach() for layer in recorder.attention],
            layers=recorder.layers,
            outputs=recorder.outputs,
        )

    def _watch(self) -> Watch:
        """What the methods ask to be looked at."""
        forwards = [need for need in self.needs if isinstance(need, Forward)]
        layers = any(need.layers for need in forwards)
        outputs = any(need.outputs for need in forwards)
        of_attention = Backward("attention") in self.needs
        return Watch(
            attention=layers or of_attention or any(need.attention for need in forwards),
            layers=layers,
            # Several positions of a row may be read.
            whole=self.layered or outputs or self.batch.inputs.read.row is not None,
            outputs=outputs,
        )

    def gradients(
        self, explained: torch.Tensor, wanted: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """Gradients of each instance's scalar, [B], each [B, ...] of what inputs have, [n, ...].

        No input has a part in another's scalar: the first questions of all inputs are
        differentiated at once, then the second ones, and so on.
        """
        row = self.batch.inputs.read.row
        if row is None:
            return torch.autograd.grad(explained.sum(), wanted)
        found = [x.new_empty(len(row), *x.shape[1:]) for x in wanted]
        ranks = self.batch.ranks
        for own in ranks:
            more = own is not ranks[-1]
            gradients = torch.autograd.grad(explained[own].sum(), wanted, retain_graph=more)
            for kept, gradient in zip(found, gradients, strict=True):
                kept[own] = gradient[row[own]]
        return found

    def __call__(self, wanted: Pass[Result]) -> Result:
        """What a pass gives; run when it is first asked for, with all that are alike, then kept."""
        key = wanted.shared
        alike, result = self._results.get(key, (frozenset(), None))
        if wanted not in alike:
            alike = frozenset({one for one in self.needs if one.shared == key} | {wanted})
            start = self.clock()
            result = wanted.run(self, sorted(alike, key=str))
            self._results[key] = alike, result
            self._spent(wanted, start)
        return wanted.read(result)

    def _question(self, target: str | int) -> Explained:
        scalar = self.scalar or parse_explain("auto", self.model)
        return Explained.of(scalar, target, self.logits, self.batch.instances)

    def explained_by(self, target: Target) -> Explained:
        """What is explained of each instance, of the explained or of the gold class.

        Raises:
            ValueError: If the gold class is asked for and an instance has no label.
        """
        if target == "explained":
            return self.question
        for instance in self.batch.instances:
            if instance.label is None:
                raise ValueError(f"{instance.instance_id} has no label, and its gold class is used")
        return self._question("gold")

    def clock(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return perf_counter()

    def cost(self, needs: Iterable[Wish]) -> float:
        """Seconds of the passes that a method needs, those it shares with others in full."""
        return sum(self._pass_seconds(kind) for kind in needs)

    def _spent(self, kind: Wish, since: float) -> None:
        self.seconds[kind.shared] = self.clock() - since

    def _pass_seconds(self, kind: Wish) -> float:
        return self.seconds.get(kind.shared, 0.0)
