"""What passes over a batch captured: each is run when it is first read, and kept."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, TypeVar

import torch

from attribeam.transforms.inputs.batch import Batch, row_cost
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.targets import Explained, Output, Scalar, parse_explain
from attribeam.transforms.network.capture import LayerStates, Recorder, Watch
from attribeam.transforms.network.maps import AttentionMaps, Taps
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rules import Rules
from attribeam.transforms.passes.base import Pass, Target, Wish
from attribeam.transforms.passes.bottleneck import Statistics
from attribeam.transforms.passes.forward import Backward, Forward, Weighed
from attribeam.transforms.passes.graph import AT_ONCE, Gradients, Graph, by_rank
from attribeam.transforms.passes.ruled import Left, Ruled
from attribeam.transforms.passes.segments import Segments

Result = TypeVar("Result")
_NOTHING = Watch()
# Numbers of all layers' attention that are held, however few tokens the budget is of.
HELD = 1 << 27


@dataclass(frozen=True)
class Seen:
    """What a run of the model left of n rows of T positions.

    Attributes:
        entered: What entered the first layer, [n, T, d].
        attention: Attention probabilities per layer, each [n, H, T, T]; zero at padded keys. Of
            long inputs it is made again each time that a layer's is read.
        layers: What passed through each layer.
        outputs: What came out of each layer, [n, T, d].
    """

    entered: torch.Tensor
    attention: AttentionMaps
    layers: list[LayerStates]
    outputs: list[torch.Tensor]

    def of(self, share: "Share") -> "Seen":
        """What it left of some rows."""
        some = share.of_inputs
        layers = [
            LayerStates(some(x.entered), some(x.values), tuple(map(some, x.sums)))
            for x in self.layers
        ]
        outputs = list(map(some, self.outputs))
        return Seen(some(self.entered), self.attention.mapped(some), layers, outputs)


@dataclass
class Captured:
    """A batch, and what the passes over it captured; the passes are run when first read.

    Where several questions are about an input (``whole``), that is run once. What it holds inside
    is had by input, and gradients by ``parts``, each of one question about some of the inputs.

    Attributes:
        model: The model.
        batch: The batch, B instances of at most T tokens, about n inputs.
        target: Rule for the class to explain (``targets.parse_target``).
        budget: Token budget for the extra rows of passes that add rows.
        seed: Seed of the run.
        needs: The passes that the chosen methods need.
        layered: Whether methods are to give their scores layer by layer as well.
        pixels: Whether methods are to give their scores by pixel as well, where they have them.
        statistics: Those of the corpus, if a method needs them.
        scalar: Which scalar of the class is explained; None for what models of its kind are
            explained by (``targets.parse_explain``).
        share: Which questions of which capture it has, if it is but a part of one.
        seconds: Wall time per pass that was run, by what it shares (``Pass.shared``).
        logits: Logits, [B, C].
        question: What is explained of each instance.
        inputs: What one run of the model left, of each input once.
        gradient: Gradient with respect to what is fed, by position, [B, T, n]; None of a capture
            that has parts.
        fed: What that is: what enters the first layer; of pictures, the pixels of each patch.
        attention_gradient: Gradient with respect to the attention of the layers that are asked for,
            of which the top one's is the last; at padding it need not be zero. None of a capture
            that has parts.
        weighed: Attention of each layer weighed with its gradient (``Weighed``), [n, T, T] each.
            None of a capture that has parts.
        of_rules: Rules that the base pass followed, if it was relevance by them that was asked for
            alone, and what is to be differentiated for it.
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
    share: "Share | None" = None
    seconds: dict[Hashable, float] = field(default_factory=dict)
    logits: torch.Tensor = field(init=False)
    question: Explained = field(init=False)
    inputs: Seen = field(init=False)
    gradient: torch.Tensor | None = field(init=False, default=None)
    fed: torch.Tensor | None = field(init=False, default=None)
    attention_gradient: list[torch.Tensor] = field(init=False, default_factory=list)
    weighed: list[torch.Tensor] = field(init=False, default_factory=list)
    of_rules: "Left | None" = field(init=False, default=None)
    _graph: Graph | None = field(init=False, default=None)
    _kept: dict[Hashable, torch.Tensor] = field(init=False, default_factory=dict)
    _results: dict[Hashable, tuple[frozenset[Wish], Any]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.share is None:
            self._run_base()
        else:
            self._take(self.share)

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
        """The row of each instance's readout position: [n, ..., T, x] of inputs to [B, ..., x].

        Of [n, ..., 1, x] it is the one that is there; of instances that are read from a mean it is
        the mean of rows.
        """
        read = self.batch.inputs.read
        if matrix.shape[-2] == 1 and read.at is not None:
            return self.asked(matrix.squeeze(-2))
        return read.of(matrix.transpose(1, -2))

    def asked(self, of_inputs: torch.Tensor) -> torch.Tensor:
        """What inputs have, [n, ...], as each question about them has it, [B, ...]."""
        row = self.batch.inputs.read.row
        return of_inputs if row is None else of_inputs[row]

    @property
    def entered(self) -> torch.Tensor:
        """What entered the first layer, [n, T, d]."""
        return self.inputs.entered

    @property
    def attention(self) -> AttentionMaps:
        """Attention probabilities per layer, each [n, H, T, T]; zero at padded keys."""
        return self.inputs.attention

    @property
    def layers(self) -> list[LayerStates]:
        """What passed through each layer, of each input."""
        return self.inputs.layers

    @property
    def outputs(self) -> list[torch.Tensor]:
        """What came out of each layer, [n, T, d]."""
        return self.inputs.outputs

    def run_inputs(
        self,
        count: int = 1,
        *,
        watch: Watch = _NOTHING,
        enter: torch.Tensor | None = None,
        start: int = 0,
        rules: Rules | None = None,
    ) -> tuple[torch.Tensor, Recorder]:
        """Runs copies of the inputs, and reads all that is asked of them.

        Args:
            count: How many copies, one after the other.
            watch: What to look at.
            enter: Replaces what enters a layer, [count * n, T, d].
            start: The layer; those below it are not run.
            rules: Rules that gradients are to follow.

        Returns:
            Logits, [count * B, C], and the recorder.
        """
        batch, model = self.batch, self.model
        if self.single or watch.whole or not batch.read_alike:
            inputs = batch.inputs.repeated(count)
            return model.run(inputs, watch=watch, enter=enter, start=start, rules=rules)
        # Nothing but what is read need come out of the last layer.
        once = batch.once.rows.repeated(count)
        _, recorder = model.run(once, watch=watch, enter=enter, start=start, rules=rules)
        rows, left = replace(batch.inputs, inputs={}).repeated(count), recorder.left
        assert rows.read.row is not None and left is not None
        read = replace(batch.rows, inputs={}).repeated(count)
        with model.autocast():
            logits = model.logits_of(left[rows.read.row], read, rules)
        return logits.to(model.dtype), recorder

    def _run_base(self) -> None:
        """The real inputs, once: forward, and backward if a method asked for gradients."""
        start = self.clock()
        if (carrying := self._carrying()) is not None:
            self._run_carrying(carrying)
            return
        of_input, watch = Backward() in self.needs, self._watch()
        ruled = self._ruled()
        graph, rules = of_input or self._of_attention, None if ruled is None else ruled.of_network
        kind, leaf, entered = inputs_of(self.model), None, None
        with torch.set_grad_enabled(graph or ruled is not None):
            if of_input or ruled is not None:
                rows = self.batch.once.rows
                leaf, enter = kind.leaf(self.model, rows)
                leaf = leaf.detach().requires_grad_()
                entered = enter(rows, leaf)
            logits, recorder = self.run_inputs(watch=watch, enter=entered, rules=rules)
            self.logits = logits.detach()
            self._spent(Forward(), start)
            self.question = self._question(self.target)
            if ruled is not None and leaf is not None:
                self.of_rules = Left(ruled.rules, self.question(logits), leaf)
            elif graph:
                self._graph = self._graph_of(self.question(logits), leaf, recorder)
        assert recorder.entered is not None
        self.inputs = Seen(
            entered=recorder.entered.detach(),
            attention=recorder.attention.mapped(torch.Tensor.detach),
            layers=recorder.layers,
            outputs=recorder.outputs,
        )
        if self._graph is not None and self.single:
            self._keep(self._graph, self._graph.gradients(0))
            self._graph = None
            self._spent(Backward(), start)

    def _graph_of(
        self, explained: torch.Tensor, leaf: torch.Tensor | None, recorder: Recorder
    ) -> Graph:
        """What is to be differentiated of the base pass."""
        depth, first = self.model.num_layers, recorder.watch.graph_from
        taps, attention = recorder.watch.taps, list[torch.Tensor]()
        if first is not None and taps is None:
            attention = list(recorder.attention[first:])
        return Graph(
            explained,
            leaf,
            attention,
            self.batch.ranks,
            self._ranks_at_once,
            weighs=Weighed() in self.needs,
            holds=0 if self._held_from is None else depth - self._held_from,
            depth=depth,
            taps=taps,
        )

    def _ruled(self) -> Ruled | None:
        """The rules of relevance that one pass is to follow where nothing else is asked of it.

        What it computes is the same but for rounding, so that it can be the base pass.
        """
        behind = {n.rules for n in self.needs if isinstance(n, Segments) and not n.ahead(self)}
        names = {need.rules for need in self.needs if isinstance(need, Ruled)} | behind
        plain = any(need.shared in (Backward, Forward) for need in self.needs)
        return Ruled(names.pop()) if len(names) == 1 and not plain and not self.layered else None

    def _carrying(self) -> Segments | None:
        """The pass that carries tangents, if it can be the base: nothing else is asked for."""
        only = next(iter(self.needs), None)
        alone = isinstance(only, Segments) and len(self.needs) == 1 and not self.layered
        return only if alone and isinstance(only, Segments) and only.ahead(self) else None

    def _run_carrying(self, wish: Segments) -> None:
        """The real inputs, once, with tangents."""
        start, kind, rows = self.clock(), inputs_of(self.model), self.batch.once.rows
        self.logits, tangents = wish.carried(self)
        self.question = self._question(self.target)
        leaf, enter = kind.leaf(self.model, rows)
        with torch.no_grad():
            self.inputs = Seen(enter(rows, leaf), AttentionMaps(), [], [])
        self._results[wish.shared] = frozenset({wish}), wish.of_tangents(self, tangents)
        self._spent(wish, start)

    def _take(self, share: "Share") -> None:
        """What a capture has of some questions, and their gradients, if it has any."""
        whole, numbers = share.whole, share.numbers
        self.logits, self.question = whole.logits[numbers], whole.question.chosen(numbers)
        self.inputs = whole.inputs.of(share)
        if whole._graph is not None:
            start = self.clock()
            gradients = whole._graph.gradients(share.rank)
            self._keep(whole._graph, gradients)
            self._spent(Backward(), start)
            self.seconds[Backward().shared] += self._pass_seconds(Forward())

    def _keep(self, graph: Graph, found: Gradients) -> None:
        """Keeps the gradients of each instance's scalar."""

        def own(x: torch.Tensor) -> torch.Tensor:
            return x if self.share is None else self.share.of_inputs(x)

        if graph.leaf is not None and found.leaf is not None:
            kind = inputs_of(self.model)
            self.gradient = kind.vectors(self.model, own(found.leaf))
            self.fed = kind.vectors(self.model, own(graph.leaf.detach()))
        self.weighed, self.attention_gradient = (
            list(map(own, found.weighed)),
            list(map(own, found.held)),
        )

    @property
    def _of_attention(self) -> bool:
        """Whether gradients are of attention."""
        return self._held_from is not None or Weighed() in self.needs

    @property
    def _held_from(self) -> int | None:
        """The first layer of whose attention the gradient is to be held; None for none."""
        depth, needs = self.model.num_layers, self.needs
        of_attention = [n for n in needs if isinstance(n, Backward) and n.of == "attention"]
        return min((need.lowest % depth for need in of_attention), default=None)

    @property
    def _remakes(self) -> bool:
        """Whether attention of all layers is more than is to be held: that of long inputs alone.

        Where products are in half precision, it could be made again within its rounding alone.
        """
        rows, model = self.batch.once.rows, self.model
        numbers = len(rows) * model.num_layers * model.num_heads * rows.length**2
        alone = len(rows) * row_cost(rows.length, model.head_size) > self.budget
        return alone and numbers > HELD and "looked_up" in model.traits and not model.mixed

    @property
    def single(self) -> bool:
        """Whether each instance is about an input of its own."""
        return self.batch.inputs.read.row is None

    def part(self, rank: int) -> "Captured":
        """A capture of the questions of one rank: each is about another input."""
        numbers = self.batch.ranks[rank]
        share = Share(self, rank, numbers)
        return replace(self, batch=self.batch.part(numbers), share=share, seconds={})

    def read_of(self, of_inputs: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """What inputs have of attention, of some questions by their numbers.

        Of all positions, [n, H, T, T], it is what is read of them, [b, H, T]; of means all is.
        """
        read = self.batch.inputs.read
        rows = of_inputs if read.row is None else of_inputs[read.row[own]]
        if read.at is None or rows.dim() == 3:
            return rows
        return rows.transpose(1, 2)[torch.arange(len(own), device=own.device), read.at[own]]

    @property
    def of_last_attention(self) -> torch.Tensor | None:
        """Gradient with respect to the last layer's attention of what is read, [B, H, T], if any.

        Of means it is that of all positions, [B, H, T, T].
        """
        read, found = self.batch.inputs.read, None
        if self.attention_gradient:
            found = self.attention_gradient[-1]
            return found if read.at is None else self.at_readout(found)
        if self._graph is None or not self._graph.attention:
            return None
        explained, last = self._graph.explained, self._graph.attention[-1]
        for own in self.batch.ranks:
            ((gradient,),) = by_rank([own], explained, [last], again=True)
            rows = self.read_of(gradient, own)
            found = rows.new_empty(len(self.batch), *rows.shape[1:]) if found is None else found
            found[own] = rows
        return found

    def _watch(self) -> Watch:
        """What the methods ask to be looked at."""
        forwards = [need for need in self.needs if isinstance(need, Forward)]
        layers = any(need.layers for need in forwards)
        outputs = any(need.outputs for need in forwards)
        attention = layers or self._of_attention or any(need.attention for need in forwards)
        remade = attention and self._remakes
        first = (0 if Weighed() in self.needs else self._held_from) if attention else None
        return Watch(
            attention=attention,
            layers=layers,
            whole=self.layered or outputs,
            outputs=outputs,
            graph_from=first,
            remade=remade,
            taps=Taps(self.model.device) if remade and first is not None else None,
        )

    def gradients(
        self, explained: torch.Tensor, wanted: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """Gradients of each instance's scalar, [B], each [B, ...] of what inputs have, [n, ...]."""
        row, ranks = self.batch.inputs.read.row, self.batch.ranks
        graph = Graph(explained, None, list(wanted), ranks, self._ranks_at_once, holds=len(wanted))
        if row is None:
            return graph.gradients(0).held
        found = [x.new_empty(len(row), *x.shape[1:]) for x in wanted]
        for rank, own in enumerate(ranks):
            for kept, gradient in zip(found, graph.gradients(rank).held, strict=True):
                kept[own] = gradient[row[own]]
        return found

    @property
    def _ranks_at_once(self) -> int:
        """How many ranks of questions the budget has room for beside the inputs."""
        cost = len(self.batch.once) * row_cost(self.batch.rows.length, self.model.head_size)
        return max(1, min(AT_ONCE, int(self.budget / cost)))

    def of_inputs(
        self, key: Hashable, compute: "Callable[[Captured], torch.Tensor]"
    ) -> torch.Tensor:
        """What inputs have whatever is asked of them, [n, ...], computed once for all questions.

        Args:
            key: What it is, as no other.
            compute: Computes it of the capture of all questions.
        """
        if self.share is None:
            return compute(self)
        whole = self.share.whole
        if key not in whole._kept:
            whole._kept[key] = compute(whole)
        return self.share.of_inputs(whole._kept[key])

    def __call__(self, wanted: Pass[Result]) -> Result:
        """What a pass gives; run when it is first asked for, with all that are alike, then kept."""
        return wanted.read(self._run(wanted))

    def _run(self, wanted: Wish) -> Any:
        """What it gives, with all that are alike."""
        if self.share is not None and wanted.is_of_inputs(self.share.whole):
            return wanted.part(self.share.whole._run(wanted), self.share)
        key = wanted.shared
        alike, result = self._results.get(key, (frozenset(), None))
        if wanted not in alike:
            alike = frozenset({one for one in self.needs if one.shared == key} | {wanted})
            start = self.clock()
            result = wanted.run(self, sorted(alike, key=str))
            self._results[key] = alike, result
            self._spent(wanted, start)
        return result

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
        if self.share is not None and kind.shared not in self.seconds:
            return self.share.of_tokens * self.share.whole._pass_seconds(kind)
        return self.seconds.get(kind.shared, 0.0)

    @property
    def spent(self) -> float:
        """Seconds of all passes that were run, of what this is a part of, too."""
        others: float = 0.0 if self.share is None else self.share.whole.spent
        return sum(self.seconds.values()) + others


@dataclass(frozen=True, eq=False)
class Share:
    """Some questions of a capture, each about another input.

    Attributes:
        whole: The capture.
        rank: How many questions about an input come before each.
        numbers: Those of the questions, [b].
    """

    whole: Captured
    rank: int
    numbers: torch.Tensor

    @property
    def row(self) -> torch.Tensor:
        """The input that each is about, by its number, [b]."""
        row = self.whole.batch.inputs.read.row
        return self.numbers if row is None else row[self.numbers]

    @property
    def of_tokens(self) -> float:
        """How much of all tokens they have, of whose cost that of a batch is shared out."""
        lengths = self.whole.batch.lengths
        own: int = sum(lengths[number] for number in self.numbers.tolist())
        return own / sum(lengths)

    def of_inputs(self, found: torch.Tensor) -> torch.Tensor:
        """What all inputs have, [n, ...], of those alone that they are about, [b, ...]."""
        row = self.row
        every = len(row) == len(found) and bool((row == torch.arange(len(row)).to(row)).all())
        return found if every else found[row]
