"""What passes over a batch captured: each is run when it is first read, and kept."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Batch, Flags, row_cost
from attribeam.transforms.inputs.targets import Explained, Output, Scalar, parse_explain
from attribeam.transforms.inputs.variants import Operation, Variants
from attribeam.transforms.network.capture import LayerStates, Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.attention_path import (
    AttentionStates,
    AttentionSummary,
    TaylorImportance,
    attention_attributions,
    summarised,
    taylor_importance,
)
from attribeam.transforms.passes.base import (
    AttentionPaths,
    Backward,
    BaselineName,
    Forward,
    InfluencePaths,
    Norms,
    Of,
    Pass,
    Path,
    PatternAblation,
    Relevance,
    Target,
    Taylor,
    quadrature,
)
from attribeam.transforms.passes.bottleneck import Statistics
from attribeam.transforms.passes.influence import (
    InfluenceStates,
    influence_states,
    margin_weights,
    word_baseline,
)
from attribeam.transforms.passes.norms import Level, NormMaps, norm_maps
from attribeam.transforms.passes.pattern_ablation import AblationRow, ablations
from attribeam.transforms.passes.patterns import Influence, Pattern, reduced
from attribeam.transforms.passes.relevance import RelevanceMaps, Rules, walk
from attribeam.transforms.recovery import fitting


@dataclass(frozen=True)
class PathGradient:
    """What a ``Path`` pass gives.

    Attributes:
        gradient: Weighted mean of the gradients along the path, [B, T, d]; None if nobody asked.
        attention: That of the gradients of the last layer's attention, [B, H, T]; None if nobody
            asked. At padding it need not be zero.
        difference: Input minus baseline, [B, T, d].
        gain: The output at the input minus at the baseline, [B]; None without ``gradient``.
    """

    gradient: torch.Tensor | None
    attention: torch.Tensor | None
    difference: torch.Tensor
    gain: torch.Tensor | None


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
        statistics: Those of the corpus, if a method needs them.
        scalar: Which scalar of the class is explained; None for what models of its kind are
            explained by (``targets.parse_explain``).
        seconds: Wall time per pass that was run.
        logits: Logits, [B, C].
        question: What is explained of each instance.
        entered: What entered the encoder, [B, T, d].
        attention: Attention probabilities per layer, each [B, H, T, T]; zero at padded keys.
        layers: What passed through each layer.
        outputs: What came out of each layer, [B, T, d].
        gradient: Gradient with respect to ``entered``, [B, T, d].
        attention_gradient: Gradient with respect to each layer's attention; at padding it need not
            be zero.
    """

    model: Model
    batch: Batch
    target: str | int
    budget: int
    seed: int
    needs: frozenset[Pass]
    layered: bool = False
    statistics: Statistics | None = None
    scalar: Scalar | None = None
    seconds: dict[Pass, float] = field(default_factory=dict)
    logits: torch.Tensor = field(init=False)
    question: Explained = field(init=False)
    entered: torch.Tensor = field(init=False)
    attention: list[torch.Tensor] = field(init=False)
    layers: list[LayerStates] = field(init=False)
    outputs: list[torch.Tensor] = field(init=False)
    gradient: torch.Tensor | None = field(init=False, default=None)
    attention_gradient: list[torch.Tensor] = field(init=False, default_factory=list)
    _paths: dict[Path, PathGradient] = field(init=False, default_factory=dict)
    _norms: dict[Level, NormMaps] = field(init=False, default_factory=dict)
    _relevances: dict[Rules, RelevanceMaps] = field(init=False, default_factory=dict)
    _attentions: dict[AttentionPaths, AttentionSummary] = field(init=False, default_factory=dict)
    _taylors: dict[Taylor, TaylorImportance] = field(init=False, default_factory=dict)
    _influences: dict[InfluencePaths, list[Influence]] = field(init=False, default_factory=dict)
    _ablations: dict[InfluencePaths, list[list[AblationRow]]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        self._run_base()

    @property
    def weights(self) -> torch.Tensor:
        """Weights [B, C] that turn logits into the explained scalar, if it is a sum of them."""
        return self.question.weights(self.logits)

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

        Of [B, ..., 1, x] it is the one that is there.
        """
        if matrix.shape[-2] == 1:
            return matrix.squeeze(-2)
        readout = self.batch.rows.readout
        every = torch.arange(len(readout), device=readout.device)
        return matrix.transpose(1, -2)[every, readout]

    def _run_base(self) -> None:
        """The real input, once: forward, and backward if a method asked for gradients."""
        start = self.clock()
        of_input, of_attention = Backward() in self.needs, Backward("attention") in self.needs
        forwards = [need for need in self.needs if isinstance(need, Forward)]
        layers = any(need.layers for need in forwards)
        outputs = any(need.outputs for need in forwards)
        attention = layers or of_attention or any(need.attention for need in forwards)
        graph = of_input or of_attention
        entered = None
        if graph:  # Gradients of attention need one from the first layer's attention on.
            with torch.no_grad():
                entered = self.model.embed(self.batch.rows)
            entered.requires_grad_()
        with torch.set_grad_enabled(graph):
            watch = Watch(
                attention=attention,
                layers=layers,
                whole=self.layered or outputs,
                outputs=outputs,
            )
            logits, recorder = self.model.run(self.batch.rows, watch=watch, enter=entered)
            self.logits = logits.detach()
            self._spent(Forward(), start)
            self.question = self._question(self.target)
            if entered is not None:
                wanted = [entered] * of_input + recorder.attention * of_attention
                found = torch.autograd.grad(self.question(logits).sum(), wanted)
                self.gradient = found[0] if of_input else None
                self.attention_gradient = list(found[of_input:])
                self._spent(Backward(), start)
        assert recorder.entered is not None
        self.entered = recorder.entered.detach()
        self.attention = [layer.detach() for layer in recorder.attention]
        self.layers = recorder.layers
        self.outputs = recorder.outputs

    def path(self, wanted: Path) -> PathGradient:
        """The gradients along a path; run at the first call, then kept.

        Whoever asks first, the path is walked once for all methods that need it.
        """
        route = replace(wanted, of="input")
        if route not in self._paths:
            start = self.clock()
            kinds = {of for of in get_args(Of) if replace(wanted, of=of) in self.needs}
            self._paths[route] = self._run_path(route, sorted({wanted.of, *kinds}))
            self._spent(route, start)
        return self._paths[route]

    def norms(self, wanted: Norms) -> NormMaps:
        """Norms at a level; those at all levels that methods need come at the first call."""
        if wanted.level not in self._norms:
            start = self.clock()
            levels = {need.level for need in self.needs if isinstance(need, Norms)}
            levels |= {wanted.level}
            readout = self.batch.rows.readout
            self._norms |= norm_maps(
                self.model.layers, self.attention, self.layers, levels, readout
            )
            self._spent(wanted, start)
        return self._norms[wanted.level]

    def relevance(self, wanted: Relevance) -> RelevanceMaps:
        """The relevance of the explained scalar; walked at the first call, then kept.

        It is walked as far as any method needs it by these rules.
        """
        if wanted.rules not in self._relevances:
            start, depth = self.clock(), self.model.num_layers
            needs = {need for need in self.needs if isinstance(need, Relevance)} | {wanted}
            alike = [need for need in needs if need.rules == wanted.rules]
            lowest = min(need.lowest % depth for need in alike)
            found = walk(self.model, self.batch.rows, self.weights, wanted.rules, lowest)
            self._relevances[wanted.rules] = found
            self._spent(wanted, start)
        return self._relevances[wanted.rules]

    def attention_paths(self, wanted: AttentionPaths) -> AttentionSummary:
        """Attributions of every layer's attention; computed at the first call, then kept."""
        if wanted not in self._attentions:
            start = self.clock()
            states = AttentionStates(
                self.model, self.batch.rows, self.logits, self.attention, self.layers
            )
            layers = attention_attributions(
                states,
                self.explained_by(wanted.target),
                rule=partial(quadrature, wanted.rule),
                steps=wanted.steps,
                tolerance=wanted.tolerance,
                most=wanted.most,
                output=wanted.output,
                budget=self.budget,
            )
            self._attentions[wanted] = summarised(states, layers, self.batch.lengths)
            self._spent(wanted, start)
        return self._attentions[wanted]

    def taylor(self, wanted: Taylor) -> TaylorImportance:
        """Importance of heads; computed at the first call, then kept."""
        if wanted not in self._taylors:
            start = self.clock()
            targets = self.explained_by(wanted.target).targets
            self._taylors[wanted] = taylor_importance(self.model, self.batch.rows, targets)
            self._spent(wanted, start)
        return self._taylors[wanted]

    def influence(self, wanted: InfluencePaths) -> list[Influence]:
        """Influence and patterns of each instance; computed at the first call, then kept."""
        if wanted not in self._influences:
            start = self.clock()
            found: list[Influence] = []
            self._influences[wanted] = found
            pairs = self._along_paths(wanted, found)
            if PatternAblation(wanted) in self.needs:
                self._ablations[wanted] = ablations(
                    self.model,
                    self.batch,
                    pairs,
                    self.contrast,
                    seed=self.seed,
                    budget=self.budget,
                )
            else:
                deque(pairs, maxlen=0)
            self._spent(wanted, start)
        return self._influences[wanted]

    def pattern_ablation(self, wanted: PatternAblation) -> list[list[AblationRow]]:
        """The ablations of each instance, which are run as its patterns are found."""
        self.influence(wanted.paths)
        return self._ablations[wanted.paths]

    def _along_paths(
        self, wanted: InfluencePaths, found: list[Influence]
    ) -> Iterator[tuple[InfluenceStates, list[Pattern]]]:
        """Yields what each instance holds along its path, and its patterns; keeps the latter.

        What they are found in is large, and let go of instance by instance.
        """
        points, shares = quadrature(wanted.rule, wanted.steps)
        for states in influence_states(
            self.model,
            self.batch.rows,
            self.contrast,
            word_baseline(self.model, self.batch, wanted.start),
            points=points,
            shares=shares,
            budget=self.budget,
        ):
            found.append(reduced(states))
            yield states, found[-1].patterns

    @property
    def contrast(self) -> torch.Tensor:
        """Weights [B, C] of the explained class minus the runner-up; of a masked LM, its words."""
        return margin_weights(self.logits, self.targets)

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

    def baseline(self, name: BaselineName) -> torch.Tensor:
        """Baseline embeddings, [B, T, d]."""
        if name == "zero":
            return torch.zeros_like(self.entered)
        token = self.model.pad_id if name == "pad" else self.model.mask_id
        if token is None:
            raise ValueError(f"the model's {name} token is unknown")
        ids = self.batch.rows.input_ids.masked_fill(self.batch.removable, token)
        with torch.no_grad():
            return self.model.embed(self.batch.rows.with_ids(ids))

    def _run_path(self, route: Path, kinds: Sequence[Of]) -> PathGradient:
        start = self.baseline(route.baseline)
        difference = self.entered - start
        points, weights = quadrature(route.rule, route.steps)
        size, length = self.batch.rows.input_ids.shape
        at_once = max(1, int(self.budget / (size * row_cost(length, self.model.head_size))))
        at_once = min(at_once, route.steps)
        totals: dict[Of, torch.Tensor] = {}
        done = 0

        def some(count: int) -> dict[Of, torch.Tensor]:
            alphas = torch.tensor(points[done : done + count]).to(difference)
            shares = torch.tensor(weights[done : done + count]).to(difference)
            return self._path_gradients(route, start, difference, alphas, shares, kinds)

        while done < route.steps:
            found, at_once = fitting(some, at_once)
            totals = {of: totals.get(of, 0) + found[of] for of in kinds}
            done += at_once
        gain = None
        if "input" in kinds:
            with torch.no_grad():
                base_logits, _ = self.model.run(self.batch.rows, enter=start)
            at_input, at_start = (
                self.output(logits, route.output) for logits in (self.logits, base_logits)
            )
            gain = at_input - at_start
        return PathGradient(totals.get("input"), totals.get("attention"), difference, gain)

    def _path_gradients(
        self,
        route: Path,
        start: torch.Tensor,
        difference: torch.Tensor,
        alphas: torch.Tensor,
        shares: torch.Tensor,
        kinds: Sequence[Of],
    ) -> dict[Of, torch.Tensor]:
        """Weighted sum of the gradients at some points of the path, [B, ...] of each kind.

        The weights go into the scalar that is differentiated: the sum over points is then one
        contraction of the rows' gradients, and no row's gradient depends on another's.
        """
        count = len(alphas)
        points = (start + alphas[:, None, None, None] * difference).flatten(0, 1)
        points.requires_grad_("input" in kinds)
        with torch.enable_grad():
            logits, recorder = self.model.run(
                self.batch.rows.repeated(count),
                watch=Watch(readout_attention="attention" in kinds),
                enter=points,
            )
            outputs = self.output(logits, route.output)
            weighted = (outputs * shares.repeat_interleave(len(self.batch))).sum()
            sources = {"input": points, "attention": recorder.readout_attention}
            found = torch.autograd.grad(weighted, [cast(torch.Tensor, sources[of]) for of in kinds])
        return {
            of: gradients.unflatten(0, (count, len(self.batch))).sum(0)
            for of, gradients in zip(kinds, found, strict=True)
        }

    def outcomes(self, wanted: Sequence[tuple[int, Operation, Flags]]) -> NDArray[np.float64]:
        """What the model says of perturbed copies of the batch's instances.

        Args:
            wanted: Per copy the number of its instance in the batch, the operation, and the tokens
                to remove, [T]. Equal copies are run once, all of them packed together.

        Returns:
            Logits, [N, C].

        Raises:
            Exception: What the model raised for the first copy that failed.
        """
        variants = Variants(self.model)
        numbers = [variants.add(self.batch.instances[i], how, out) for i, how, out in wanted]
        variants.run(self.budget)
        if variants.errors:
            raise variants.errors[min(variants.errors)]
        return variants.logits[numbers]

    def clock(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return perf_counter()

    def cost(self, needs: Iterable[Pass]) -> float:
        """Seconds of the passes that a method needs, those it shares with others in full."""
        return sum(self._pass_seconds(kind) for kind in needs)

    def _spent(self, kind: Pass, since: float) -> None:
        self.seconds[_whole(kind)] = self.clock() - since

    def _pass_seconds(self, kind: Pass) -> float:
        return self.seconds.get(_whole(kind), 0.0)


def _whole(kind: Pass) -> Pass:
    """What stands for all that is run at once with a pass, whatever was wanted of it."""
    match kind:
        case Forward() | Backward():
            return type(kind)()
        case Path():
            return replace(kind, of="input")
        case Relevance():
            return replace(kind, lowest=0)
        case Norms():
            return Norms("values")
        case _:
            return kind
