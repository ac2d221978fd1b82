"""What a user asks for, from the command line or from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transforms.encode import Overflow, Words
from transforms.perturb import Evaluation


@dataclass(frozen=True)
class Options:
    """What the user asked for; the names are those of the command line's options.

    Attributes:
        model: Local folder or hub id.
        corpus: See ``sources.open_source``.
        output: Folder of the run, local or at a URL.
        split: Split of the corpus.
        limit: Most rows of the corpus to take.
        methods: Names separated by commas, or ``all``.
        params: Parameters by method.
        layers: Scores by layer too, of the methods that have them.
        target: ``auto``, ``predicted``, ``gold`` or the number of a class.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32``, ``float64`` or ``bfloat16``.
        token_budget: Largest batch in tokens of short rows; None for the device's default.
        shard_size: Instances a shard: what is committed at a time.
        seed: Seed of all that is random.
        evaluation: What is perturbed; None for no curves.
        workers: Number of worker processes.
        columns: Column by role (``corpus.ROLES``) where the guess is wrong; ``none`` for none.
        max_length: Most tokens of an instance; None for the model's limit.
        overflow: ``truncate`` or ``fail`` for longer texts.
        words: ``whitespace`` or ``tokenizer``.
        mask_token_id: The mask token, for a model without tokenizer.
        allow_pickle: Load pickled weights.
        trust_remote_code: Let the model bring its own code.
        runner: A Beam runner.
        beam: Further Beam options, as on the command line.
    """

    model: str
    corpus: str
    output: str
    split: str | None = None
    limit: int | None = None
    methods: str = "all"
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: bool = False
    target: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    token_budget: int | None = None
    shard_size: int = 512
    seed: int = 0
    evaluation: Evaluation | None = field(default_factory=Evaluation)
    workers: int = 1
    columns: Mapping[str, str | None] = field(default_factory=dict)
    max_length: int | None = None
    overflow: Overflow = "truncate"
    words: Words = "whitespace"
    mask_token_id: int | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    runner: str = "FnApiRunner"
    beam: Sequence[str] = ()

    @property
    def beam_flags(self) -> list[str]:
        """All that Beam is told, as on its command line."""
        flags = [f"--runner={self.runner}", *self.beam]
        if self.workers > 1:
            flags.append("--direct_running_mode=multi_processing")
            flags.append(f"--direct_num_workers={self.workers}")
        return flags
