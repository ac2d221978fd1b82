"""What a run is told to do, as the worker needs it: plain values that travel with the graph."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from attribeam.schemas import UsageError
from attribeam.schemas.manifest import EvaluationRecord, Manifest
from attribeam.transforms import EncodeOptions
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.inputs.targets import GIVEN, GIVEN_RULE, Scalar
from attribeam.transforms.inputs.variants import WordScore
from attribeam.transforms.registry import Chosen, choose


@dataclass(frozen=True)
class ModelCopy:
    """The copy of the model in the run's folder, for workers that are elsewhere.

    Attributes:
        digest: Hash of its files and their names; names its folder.
        names: Names of its files.
    """

    digest: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class ImputerPlace:
    """The masked LM that fills what is removed.

    Attributes:
        folder: Its folder, on the machine that the job is launched on.
        source: What it was called.
        weights: Hash of its weights.
        copy: What workers elsewhere load; None if all are on this machine.
    """

    folder: str
    source: str
    weights: str
    copy: ModelCopy | None


@dataclass(frozen=True)
class Settings:
    """Settings of a run, checked.

    Attributes:
        model: Folder of the model, on the machine that the job is launched on.
        model_name: What the tables call it.
        output: The run's folder.
        num_shards: Number of shards of the corpus.
        target: Class to explain (``targets.parse_target``).
        given_targets: Checksum of the classes that another run explains, if it is these
            (``corpus.targets``).
        scalar: Which scalar of it (``targets.parse_explain``).
        seed: Seed of all that is random.
        dtype: Precision of the model and the scores.
        encoding: How texts become tokens.
        methods: Parameters by method.
        evaluation: What is perturbed; None for no curves.
        imputer: The masked LM that fills what is removed, if it was named.
        by_largest: Methods whose words are ranked by their largest token whatever their rule is
            now, since the run was begun so.
        curve_targets: Store the class that curves follow; a run that was begun without goes on so.
        filled: Per method the tables that it has in the run, whichever call has asked for them;
            None where that is what this call asks for.
        layers: Scores by layer too, of the methods that have them.
        pixels: Scores by pixel too, of the methods that have them.
        masks: Whether the corpus has masks of pictures, which scores are held against.
        device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` too for workers that are elsewhere.
        token_budget: Largest batch in tokens of short rows; None for the device's default.
        workers: Number of worker processes, which share the machine's processors.
        mask_token_id: The mask token, for a model without tokenizer.
        pooling: Where a classifier of pictures is read.
        prompts: Texts that are the classes of pictures, if they are.
        allow_pickle: Load pickled weights.
        trust_remote_code: Let the model bring its own code.
        tokenizer: Whether the model's tokenizer is loaded.
        model_copy: What workers that are elsewhere load; None if all are on this machine.
        stores: What workers that Beam tells nothing need to know of stores.
    """

    model: str
    model_name: str
    output: str
    num_shards: int
    target: str | int
    scalar: Scalar
    seed: int
    dtype: str
    encoding: EncodeOptions
    methods: dict[str, dict[str, Any]]
    evaluation: Evaluation | None
    filled: Mapping[str, tuple[str, ...]] | None = None
    layers: bool = False
    pixels: bool = False
    masks: bool = False
    device: str = "cpu"
    token_budget: int | None = None
    workers: int = 1
    mask_token_id: int | None = None
    pooling: str = "auto"
    prompts: tuple[str, ...] | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    tokenizer: bool = True
    model_copy: ModelCopy | None = None
    stores: Mapping[str, Any] = field(default_factory=dict)
    given_targets: str | None = None
    imputer: ImputerPlace | None = None
    by_largest: tuple[str, ...] = ()
    curve_targets: bool = True

    @property
    def chosen(self) -> list[Chosen]:
        """The methods with their parameters."""
        return choose(list(self.methods), self.methods) if self.methods else []

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Per method the tables that it fills."""
        asked = {
            "layers": self.layers,
            "evaluate": self.evaluation is not None,
            "localise": self.masks,
        }
        return {choice.name: choice.tables(**asked) for choice in self.chosen}

    @property
    def of_imputer(self) -> "Settings":
        """Settings that load the masked LM in place of the model.

        Raises:
            UsageError: If none was named.
        """
        if self.imputer is None:
            raise UsageError(
                "the run's curves have the operation impute: name the masked LM with --imputer"
            )
        return replace(self, model=self.imputer.folder, model_copy=self.imputer.copy, imputer=None)

    def tables_of(self, method: str) -> tuple[str, ...]:
        """The tables that a method has in the run."""
        return (self.tables if self.filled is None else self.filled)[method]

    def as_begun(self, manifest: Manifest) -> "Settings":
        """The same settings, but for what a run keeps that an older version began.

        Args:
            manifest: ``run.json``; it has no ``word_score`` of the methods that are older than it.
        """
        older = {
            n: method for n, method in manifest["methods"].items() if "word_score" not in method
        }
        begun = any("curves" in method["tables"] for method in older.values())
        return replace(self, by_largest=tuple(older), curve_targets=not begun)

    def word_score(self, method: str) -> WordScore:
        """What a word's score is of its tokens' under a method, where words are removed."""
        (choice,) = choose([method], {method: self.methods.get(method, {})})
        return "max" if method in self.by_largest else choice.word_score

    @property
    def target_rule(self) -> str | int:
        """The target as ``run.json`` and the files have it."""
        return GIVEN_RULE if self.target == GIVEN else self.target

    @property
    def double(self) -> bool:
        """Whether tables hold float64."""
        return self.dtype == "float64"

    def loading(self) -> dict[str, Any]:
        """Arguments of ``attribeam.transforms.load_model``, but for the folder and the device."""
        names = (
            "dtype",
            "allow_pickle",
            "trust_remote_code",
            "mask_token_id",
            "tokenizer",
            "pooling",
            "prompts",
        )
        return {name: getattr(self, name) for name in names}

    def evaluation_record(self) -> EvaluationRecord | None:
        """The evaluation as ``run.json`` holds it."""
        if self.evaluation is None:
            return None
        values = asdict(self.evaluation)
        record = {
            key: list(v) if isinstance(v, tuple) else v
            for key, v in values.items()
            # Of pairs alone, and as in runs from before units were removed one by one.
            if v is not None and v is not False
        }
        return cast(EvaluationRecord, record)
