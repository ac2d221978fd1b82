"""The masked LM that fills what is removed (``--imputer``): found and checked before any work."""

from pathlib import Path
from typing import Any

from attribeam.pipeline.options import Options
from attribeam.pipeline.running.fingerprint import model_hashes
from attribeam.pipeline.settings import ImputerPlace, Settings
from attribeam.pipeline.workers.model_files import copy_of, local_model
from attribeam.schemas import UsageError
from attribeam.transforms import Model, load_model
from attribeam.transforms.evaluate import IMPUTE, Evaluation
from attribeam.transforms.inputs.filling import check_imputer

# In whose draws rounding decides nothing, so that these are the same whatever else is in a batch.
_DTYPE = "float64"


def find_imputer(
    options: Options, folder: Path, model: Model, evaluation: Evaluation | None, *, here: bool
) -> ImputerPlace | None:
    """Where the masked LM is that is asked for, once it is known that it will do.

    Args:
        options: The options.
        folder: Its folder, if one was named.
        model: What is explained.
        evaluation: What is perturbed.
        here: Whether all workers are on this machine.

    Raises:
        UsageError: If it can't be loaded, is no masked LM, or has another tokenizer.
    """
    assert options.imputer is not None
    if evaluation is not None and IMPUTE not in evaluation.operations:
        raise UsageError(
            f"--imputer {options.imputer} goes with --operations {IMPUTE}, which isn't among "
            f"{', '.join(evaluation.operations)}: add it, or leave --imputer out"
        )
    more: dict[str, Any] = {
        "allow_pickle": options.allow_pickle,
        "trust_remote_code": options.trust_remote_code,
    }
    try:
        imputer = load_model(folder, dtype=_DTYPE, **more)
    except UsageError as error:
        raise UsageError(f"--imputer {options.imputer}: {error}") from error
    check_imputer(imputer, model.of_texts, options.imputer)
    return ImputerPlace(
        folder=str(folder),
        source=options.imputer,
        weights=model_hashes(folder, imputer.whole.config)["weights_sha256"],
        copy=None if here else copy_of(folder, **more),
    )


def load_imputer(settings: Settings) -> Model | None:
    """The masked LM on a worker's device; None where nothing is imputed."""
    evaluation = settings.evaluation
    if evaluation is None or IMPUTE not in evaluation.operations:
        return None
    with local_model(settings.of_imputer) as folder:
        return load_model(
            folder,
            device=settings.device,
            dtype=_DTYPE,
            allow_pickle=settings.allow_pickle,
            trust_remote_code=settings.trust_remote_code,
        )
