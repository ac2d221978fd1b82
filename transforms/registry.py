"""The registry of methods: a row of facts and a function each, and how parameters are given."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import isfinite
from pkgutil import iter_modules
from typing import Any, Literal

import torch

from attribeam.schemas import UsageError, UsageTypeError
from attribeam.schemas.catalogue import check_names
from attribeam.transforms.costs import forward_passes
from attribeam.transforms.details import Details
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.targets import LINEAR, Scalar
from attribeam.transforms.inputs.variants import WordScore
from attribeam.transforms.network.model import Model, Trait
from attribeam.transforms.passes.base import Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.ladder import Taken

Params = Mapping[str, Any]
ParamValue = bool | int | float | str

_AUTO = "auto"
# Of whole numbers: what libraries count to, and more than anybody waits for.
_MOST = 2**31 - 1


class Choice(tuple[str, ...]):
    """A parameter that takes one of several names; the first is the default."""

    def __new__(cls, *names: str) -> "Choice":
        """Takes the names, the default first."""
        return super().__new__(cls, names)


@dataclass(frozen=True)
class LastLayers:
    """A parameter that says at which layer (0-based, inclusive) the last layers begin.

    Attributes:
        share: How many they are by default, as a share of the depth.
        least: Fewest that they are, as far as there are so many.
        of_images: Where they begin by default if a model is of pictures and so many layers, if that
            is elsewhere.
        of_pairs: The same of models that compare pictures and texts, and either side.
    """

    share: float
    least: int = 1
    of_images: Callable[[int], int] | None = None
    of_pairs: Callable[[int], int] | None = None

    def start(self, depth: int, *, images: bool = False, pairs: bool = False) -> int:
        """The layer at which they begin by default."""
        if pairs and self.of_pairs is not None:
            return self.of_pairs(depth)
        if images and self.of_images is not None:
            return min(self.of_images(depth), depth - 1)
        return max(0, depth - max(self.least, round(depth * self.share)))


@dataclass(frozen=True)
class ChoiceByTrait:
    """A parameter that takes one of several names, some of which not every model has a meaning for.

    Attributes:
        names: What a model must have for each. The first that a model has all of is its default.
    """

    names: Mapping[str, tuple[Trait, ...]]

    def fitting(self, traits: Container[Trait]) -> str:
        """The default for a model of these traits."""
        return next(n for n, asked in self.names.items() if all(trait in traits for trait in asked))


class Usual(str):
    """A name that nobody gave: the first of those that there are."""


@dataclass(frozen=True)
class ChoiceByKind:
    """A parameter that takes a name that a kind of input has (``inputs.seam``).

    Attributes:
        of: What it names.
        names: All there are of any kind. The first is the default; where a model's kind hasn't got
            that, the first that it has.
    """

    of: Literal["operations", "units", "starts"]
    names: tuple[str, ...]

    def fitting(self, model: Model) -> list[str]:
        """Those that a model's kind has, the default first."""
        there = getattr(inputs_of(model), self.of)
        return [name for name in self.names if name in there]

    def usual(self, model: Model) -> str:
        """The default: of language models, which mostly lack some tokens, the first they have."""
        there = self.fitting(model)
        if self.of != "starts" or not model.speaks:
            return there[0]
        return next((name for name in there if _starts(model, name)), there[0])


def _starts(model: Model, name: str) -> bool:
    """Whether a model has what a path of that name starts at."""
    try:
        inputs_of(model).check_start(model, name, "a path", "")
    except UsageError:
        return False
    return True


Default = ParamValue | Choice | LastLayers | ChoiceByTrait | ChoiceByKind


@dataclass(frozen=True)
class LayerScores:
    """What a method gives for each of L layers, [B, L, T] each.

    Attributes:
        local: Raw scores of the layer alone.
        rollout: Scores from the layer down to the input, summing to 1.
        scale: Natural logarithm of what ``rollout`` was divided by, [B, L].
        mixing: Context-mixing ratio of each token, where the method has one.
    """

    local: torch.Tensor
    rollout: torch.Tensor
    scale: torch.Tensor
    mixing: torch.Tensor | None = None


@dataclass(frozen=True)
class Scores:
    """What a method gives for a batch of B instances; what stands at padding is ignored.

    Attributes:
        values: Raw score per token, [B, T].
        delta: Completeness gap per instance, [B], for an additive method.
        scale: Natural logarithm of what the scores were divided by, [B], where they were.
        bias: What the method gives to no token but to the biases of the model, [B].
        unattributed: What is left of the explained scalar where it is given to no token, [B].
        layers: Scores by layer, where they were asked for and the method has them.
        details: Rows of other tables that the method gives, per instance.
        targets: Class explained per instance, [B], where it isn't that of the run.
        pixels: Raw score per pixel, row by row, [B, H * W], where they were asked for and the
            method has them.
        taken: How integrals along a path were taken, of methods of such.
        errors: Why instances have no scores, by number in the batch, of those that have none; the
            others' don't depend on them.
    """

    values: torch.Tensor
    delta: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    unattributed: torch.Tensor | None = None
    layers: LayerScores | None = None
    details: Sequence[Details] | None = None
    targets: torch.Tensor | None = None
    pixels: torch.Tensor | None = None
    taken: Taken | None = None
    errors: Mapping[int, Exception] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the registry.

    Attributes:
        name: Name in tables and on the command line.
        compute: From what the passes captured to scores.
        needs: The passes it needs, given its parameters.
        defaults: Parameters and their default values (``Choice`` and its kin for names,
            ``LastLayers``).
        signed: Whether scores have a sign that means for and against.
        class_dependent: Whether they explain a class; if not, ``attributions.target`` is null.
        additive: Whether they sum to the difference of the output to a baseline's (completeness).
        stochastic: Whether they depend on the seed.
        cost: In forward (F) and backward (B) passes.
        paper: Where it comes from.
        equation: What it computes, in short.
        layered: The table that its scores by layer go to (``--layers``), one of
            ``details.BY_LAYER``; None if it has none.
        tables: Other tables that it fills, beside its scores.
        scored: Whether it has scores of tokens. Without them it has neither ``attributions`` nor
            curves, but its other tables alone.
        presets: Parameters that belong together, by name: ``--set METHOD.preset=NAME``.
        opt_in: Why it runs only when it is named, and not with ``all``; None if it does.
        requires: What a model must have for the method to be defined for it.
        linear: Whether it is defined for sums of logits alone.
        version: A number that changes whenever the same parameters come to give other results, so
            that a run never mixes the two.
        spared: Why ``all`` leaves it out of a model that it is defined for; None if it doesn't.
        has_sign: Whether scores have a sign with given parameters, if that depends on these;
            ``signed`` is of the default ones.
        by_input: Whether it is given all questions about an input at once, and what layers hold by
            input; else it is given one about each, and then the next ones.
        former: What parameters that it hasn't always had were when it hadn't, so that older runs
            can go on.
        earlier: Defaults that it once had, with which runs that were begun so go on.
        kin: Its family, if that isn't its file.
    """

    name: str
    compute: Callable[[Captured, Params], Scores]
    needs: Callable[[Params], tuple[Wish, ...]]
    defaults: Mapping[str, Default]
    signed: bool
    class_dependent: bool
    additive: bool
    cost: str
    paper: str
    equation: str
    stochastic: bool = False
    layered: str | None = None
    tables: tuple[str, ...] = ()
    scored: bool = True
    presets: Mapping[str, Mapping[str, ParamValue]] = field(default_factory=dict)
    opt_in: str | None = None
    requires: tuple[Trait, ...] = ()
    linear: bool = False
    version: int = 1
    spared: Callable[[Params, Model], str | None] | None = None
    has_sign: Callable[[Params], bool] | None = None
    former: Mapping[str, ParamValue] = field(default_factory=dict)
    by_input: bool = False
    earlier: Mapping[str, ParamValue] = field(default_factory=dict)
    kin: str | None = None

    @property
    def family(self) -> str:
        """The methods that it is alike to: those of its file, if not its kin."""
        return self.kin or self.compute.__module__.rpartition(".")[2]

    def params(self, given: Mapping[str, Any]) -> dict[str, ParamValue]:
        """Default parameters with the given ones put in, as the types of the defaults.

        A ``preset`` stands for the parameters that it has, unless they are given themselves.

        Raises:
            UsageError: If a parameter is unknown, or its value is of the wrong kind.
        """
        given = self._spelled_out(given)
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults)) or "none"
            raise UsageError(f"{self.name} has no parameter {unknown[0]!r}; it has: {known}")
        return {
            name: _value(f"{self.name}.{name}", default, given[name])
            if name in given
            else _default(default)
            for name, default in self.defaults.items()
        }

    def as_begun(
        self, given: Mapping[str, Any], begun: Mapping[str, ParamValue]
    ) -> dict[str, ParamValue] | None:
        """Parameters with given ones put in, of a run that was begun with earlier defaults.

        Args:
            given: The given ones.
            begun: Those of the run.

        Returns:
            Them; None if it was begun with others.
        """
        given = self._spelled_out(given)
        earlier = {name: value for name, value in self.earlier.items() if name not in given}
        if not earlier or any(begun.get(name) != value for name, value in earlier.items()):
            return None
        return self.params({**earlier, **given})

    def _spelled_out(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Given parameters with the preset's in place of its name."""
        if "preset" not in given or not self.presets:
            return given
        name = given["preset"]
        if name not in self.presets:
            known = ", ".join(self.presets)
            raise UsageError(f"{self.name}.preset is one of {known}, not {name!r}")
        return {**self.presets[name], **{key: given[key] for key in given if key != "preset"}}


# What methods that require a trait are defined by, in words.
DEFINED_BY: dict[Trait, str] = {
    "layers": "is defined by layers whose parts attribeam knows",
    "post_ln": "is defined by layers that normalise after their residuals",
    "serial": "is defined by layers whose parts are added one after the other, each as it is",
    "ungated": "is defined by feed-forward parts without a gate",
    "classes": "is defined by the probabilities of classes",
    "probability": "is defined by the probability of what is asked",
    "position": "is defined by predictions that are read from one position",
    "tokens": "is defined for rows of tokens",
    "lengths": "is defined by heads that don't divide features by their lengths",
    "products": "is defined by attention scores that are products of queries and keys alone",
    "looked_up": "is defined by attention that transformers looks up in its registry",
    "likely": "is defined by the probabilities of classes",
    "causal": "is defined by positions that attend to no later ones",
    "one_sum": "is defined by one sum of what layers give, which a norm and a map turn into logits",
}
_METHODS: dict[str, Method] = {}


def register(method: Method) -> None:
    """Adds a method to the registry."""
    if method.name in _METHODS:
        raise ValueError(f"two methods are called {method.name}")
    _METHODS[method.name] = method


def methods() -> dict[str, Method]:
    """All methods by name, in order of name.

    The files of ``transforms/methods`` register theirs when they are first imported, here.
    """
    package = import_module("attribeam.transforms.methods")
    for module in iter_modules(package.__path__):
        import_module(f"attribeam.transforms.methods.{module.name}")
    return dict(sorted(_METHODS.items()))


# The parameter that says of a method that its scores were given, and not computed here.
IMPORTED = "imported"


def _with_imported(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """All methods by name, and those that parameters say to be imported."""
    known = methods()
    make = import_module("attribeam.transforms.methods.imported").imported
    named = {name: params for name, params in given.items() if name not in known}
    return known | {name: make(name, of) for name, of in named.items() if IMPORTED in of}


@dataclass(frozen=True)
class Chosen:
    """A method with its parameters fixed.

    Attributes:
        method: The method.
        params: Its parameters.
        by_all: Whether nobody named it: it is one of ``all``.
    """

    method: Method
    params: Mapping[str, ParamValue]
    by_all: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.method.name

    @property
    def signed(self) -> bool:
        """Whether scores have a sign that means for and against."""
        of_params = self.method.has_sign
        return self.method.signed if of_params is None else of_params(self.params)

    @property
    def word_score(self) -> WordScore:
        """What the score of a word is of its tokens' scores, wherever words are ranked.

        What an additive method shares out among tokens, a word has the sum of. Of other methods it
        is the largest, as is usual where a score is a magnitude (Chefer et al. 2021); of a method
        that gives each token of a word the word's score, it is that.
        """
        return "sum" if self.method.additive else "max"

    @property
    def target(self) -> str | None:
        """The class that it explains whatever the run does, ``gold``; None for that of the run."""
        target = self.params.get("target", "explained")
        return None if target == "explained" else str(target)

    def tables(self, *, layers: bool, evaluate: bool, localise: bool = False) -> tuple[str, ...]:
        """The tables that it fills, in the order in which they are committed.

        Args:
            layers: Whether scores by layer are asked for.
            evaluate: Whether scores are put to the test.
            localise: Whether they are held against masks.
        """
        method = self.method
        layered = (method.layered,) if layers and method.layered else ()
        scored = ("attributions",) if method.scored else ()
        curves = ("curves",) if method.scored and evaluate else ()
        located = ("localisation",) if method.scored and localise else ()
        return (*scored, *method.tables, *layered, *located, *curves)

    @property
    def needs(self) -> tuple[Wish, ...]:
        """The passes it needs with these parameters."""
        return self.method.needs(self.params)

    @property
    def passes(self) -> float:
        """About how many forward passes of an instance it takes with these parameters."""
        return forward_passes(self.method.cost, self.params)

    def spared(self, model: Model) -> str | None:
        """Why ``all`` leaves it out of a model that it is defined for; None if it doesn't."""
        reason = self.method.spared
        return None if reason is None else reason(self.params, model)

    def unfit(self, model: Model, scalar: Scalar | None = None) -> str | None:
        """Why the method isn't defined for a model, or a scalar of it; None if it is."""
        if model.beside is not None:
            return self._unfit_for_pairs(model, scalar)
        if self.method.linear and scalar is not None and scalar not in LINEAR:
            return f"is defined for sums of logits, and the {scalar} is none"
        asked = self.method.requires
        if "layers" not in model.traits and any(need.inside for need in self.needs):
            asked = ("layers", *asked)
        if (why := _lacking(asked, model)) is not None or not model.causal:
            return why
        try:  # Decoders mostly have no mask token, which no option then names, and no padding.
            self._check_passes(model)
        except UsageError as error:
            return f"can't be run so: {error}"
        return None

    def not_of_all(self, model: Model) -> str | None:
        """Why it has no scores of all at once that follows a prompt; None if it has them."""
        return self.unfit(model.of_all, "span")

    def fitted(self, model: Model, scalar: Scalar | None = None) -> "Chosen":
        """The same with parameters that depend on the model filled in.

        Raises:
            UsageError: If the method isn't defined for the model, or not with these parameters, or
                the model has no such layer, or can't be run as the method needs.
        """
        if (why := self.unfit(model, scalar)) is not None:
            raise UsageError(f"{self.name} {why}")
        if model.beside is not None:
            return self._alike(list(self.by_tower(model).values()))
        return self._check_passes(model)

    def _unfit_for_pairs(self, model: Model, scalar: Scalar | None) -> str | None:
        """Why it isn't defined for a side of pairs, each of which has a network of its own."""
        if self.method.tables or any(need.sample for need in self.needs):
            return "is of the layers of one network, and pairs are run by two"
        reasons = (self.for_tower(tower).unfit(tower, scalar) for tower in model.towers.values())
        return next((why for why in reasons if why is not None), None)

    def by_tower(self, model: Model) -> dict[str, "Chosen"]:
        """The same as each tower of a model runs it, by the tower's kind of input."""
        towers = model.towers.items()
        return {modality: self.for_tower(tower).fitted(tower) for modality, tower in towers}

    def for_tower(self, tower: Model) -> "Chosen":
        """The same for a tower of a model: what is for another one alone is as usual here."""
        params = dict(self.params)
        for name, default in self.method.defaults.items():
            if isinstance(default, ChoiceByKind) and params[name] not in default.fitting(tower):
                params[name] = _AUTO
        return Chosen(self.method, params)

    def _alike(self, fits: Sequence["Chosen"]) -> "Chosen":
        """The same with the parameters that all towers have; others as given, or left to each."""
        params = {}
        for name, value in fits[0].params.items():
            same = all(fit.params[name] == value for fit in fits)
            own = self.params[name]
            params[name] = value if same else _AUTO if isinstance(own, Usual) else own
        return Chosen(self.method, params)

    def _check_passes(self, model: Model) -> "Chosen":
        """The same with such parameters, once what it needs of the model is checked."""
        params = dict(self.params)
        for name, default in self.method.defaults.items():
            if isinstance(default, LastLayers | ChoiceByTrait | ChoiceByKind):
                params[name] = _fitted(f"{self.name}.{name}", default, params[name], model)
        fitted = Chosen(self.method, params)
        for kind in fitted.needs:
            kind.check(model)
        return fitted


def choose(
    names: str | Sequence[str], given: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Chosen]:
    """Looks methods up and fixes their parameters.

    Args:
        names: Names, as a list or separated by commas; ``all`` for all that aren't opt-in.
        given: Parameters by method, as ``{"integrated_gradients": {"steps": 20}}``.

    Raises:
        UsageError: If a method or a parameter is unknown, or parameters are given for a method that
            isn't among those chosen.
        UsageTypeError: If names aren't texts, or parameters no mappings.
    """
    given = given or {}
    if not isinstance(given, Mapping) or not all(isinstance(g, Mapping) for g in given.values()):
        raise UsageTypeError(
            f'parameters are given by method, as {{"lime": {{"samples": 50}}}}, not as {given!r}'
        )
    wanted = names.split(",") if isinstance(names, str) else names
    wanted = [*wanted] if isinstance(wanted, Iterable) else [wanted]
    if not all(isinstance(name, str) for name in wanted):
        raise UsageTypeError(f"methods are given by their names, and not as {names!r}")
    wanted = [name.strip() for name in wanted if name.strip()]
    known = _with_imported(given)
    everything = [name for name, method in methods().items() if method.opt_in is None]
    named = {*wanted, *given}
    wanted = [one for name in wanted for one in (everything if name == "all" else [name])]
    check_names([*wanted, *given], known)
    if not wanted:
        raise UsageError("no method was named (`attribeam methods` lists them)")
    unused = sorted(set(given) - set(wanted))
    if unused:
        raise UsageError(f"parameters were set for {unused[0]}, which is not among the methods run")
    return [
        Chosen(known[name], known[name].params(given.get(name, {})), by_all=name not in named)
        for name in dict.fromkeys(wanted)
    ]


def fit_all(
    chosen: Sequence[Chosen], model: Model, scalar: Scalar | None = None
) -> tuple[list[Chosen], dict[str, str]]:
    """Chosen methods, fitted to a model; and why others that ``all`` stands for are left out.

    Args:
        chosen: The methods.
        model: The model.
        scalar: What is explained; None for what every method is defined for.

    Raises:
        UsageError: If a method that was named isn't defined for the model, or none is, or one
            can't be run as it is to be (``Chosen.fitted``).
    """
    reasons = {
        choice.name: choice.unfit(model, scalar) or choice.spared(model)
        for choice in chosen
        if choice.by_all
    }
    left_out = {name: why for name, why in reasons.items() if why is not None}
    if left_out and len(left_out) == len(chosen):
        raise UsageError("no method that was chosen is defined for this model")
    return [c.fitted(model, scalar) for c in chosen if c.name not in left_out], left_out


def _lacking(asked: Iterable[Trait], model: Model) -> str | None:
    """Which of some traits a model lacks, in words; None if it has them all."""
    lacking = [trait for trait in asked if trait not in model.traits]
    if not lacking:
        return None
    return f"{DEFINED_BY[lacking[0]]}, and {model.whole.config.model_type} has none"


def _fitted(
    name: str,
    default: LastLayers | ChoiceByTrait | ChoiceByKind,
    value: ParamValue,
    model: Model,
) -> ParamValue:
    """A parameter as it is for a model.

    Raises:
        UsageError: If the model has no such layer, or lacks what the value asks for.
    """
    if isinstance(default, ChoiceByKind):
        there = default.fitting(model)
        if isinstance(value, Usual) or value == _AUTO:
            return default.usual(model)
        if value in there:
            return str(value)
        known = " or ".join(there)
        raise UsageError(f"{name} is {known} for a model of {model.modality}, not {value}")
    if isinstance(default, ChoiceByTrait):
        if value == _AUTO:
            return default.fitting(model.traits)
        if (why := _lacking(default.names[str(value)], model)) is not None:
            raise UsageError(f"{name}={value} {why}")
        return value
    if value == _AUTO:
        images, pairs = model.modality == "images", model.contrastive
        return default.start(model.num_layers, images=images, pairs=pairs)
    if int(value) >= model.num_layers:
        raise UsageError(
            f"{name} is {value}, but the model's layers are 0 to {model.num_layers - 1}"
        )
    return value


def values_of(default: Default) -> str:
    """The values that a parameter takes, in short; the default first."""
    match default:
        case LastLayers():
            return f"{_AUTO} | LAYER"
        case ChoiceByTrait():
            return " | ".join((_AUTO, *default.names))
        case ChoiceByKind():
            return " | ".join(default.names)
        case tuple():
            return " | ".join(default)
        case _:
            return str(default)


def _default(default: Default) -> ParamValue:
    if isinstance(default, LastLayers | ChoiceByTrait):
        return _AUTO
    if isinstance(default, ChoiceByKind):
        return Usual(default.names[0])
    return default[0] if isinstance(default, Choice) else default


def _value(name: str, default: Default, given: Any) -> ParamValue:
    """A given value as the type of the default; texts come from the command line."""
    if isinstance(default, LastLayers):
        return _AUTO if given == _AUTO else _value(name, 0, given)
    if isinstance(default, Choice | ChoiceByTrait | ChoiceByKind):
        names = default if isinstance(default, Choice) else default.names
        if not isinstance(default, Choice):
            names = (_AUTO, *names)
        if given not in names:
            raise UsageError(f"{name} is one of {', '.join(names)}, not {given!r}")
        return str(given)
    if isinstance(default, bool):
        texts = {"true": True, "false": False}
        if isinstance(given, bool):
            return given
        if str(given).lower() in texts:
            return texts[str(given).lower()]
        raise UsageError(f"{name} is true or false, not {given!r}")
    return str(given) if isinstance(default, str) else _number(name, default, given)


def _number(name: str, default: float, given: Any) -> float:
    value: float | None
    try:
        value = type(default)(given)
        if isinstance(given, bool) or not isfinite(value) or value != float(given):
            value = None
    except (TypeError, ValueError, OverflowError):
        value = None
    if value is None:
        raise UsageError(f"{name} is a number such as {default}, not {given!r}")
    if isinstance(value, int) and isinstance(default, int):
        if value < min(default, 1):
            raise UsageError(f"{name} is at least {min(default, 1)}, not {given!r}")
        if value > _MOST:
            raise UsageError(f"{name} is at most {_MOST}, not {given!r}")
    return value
