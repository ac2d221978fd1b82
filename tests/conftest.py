"""What all tests share: one thread, quiet libraries, and models that are made once."""

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, settings

from attribeam.transforms import Model, load_model
from attribeam.transforms.network.rows import Rows
from tests.support.models import GOLDENS, save_tiny

# Nothing of what is imported and collected is garbage: to look for it time and again takes seconds.
gc.disable()
torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

settings.register_profile(
    "attribeam",
    deadline=None,
    derandomize=True,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("attribeam")

LoadTiny = Callable[..., Model]


# Whole runs of other processes, and many numbers: begun first, so that no process of several is
# left with one of them when all the others are done.
LONG = (
    *("test_installed", "test_workers", "test_portable", "test_tour", "test_kill", "test_machine"),
    *("test_methods", "test_other_runs", "test_fuzz", "test_beyond_intuition", "test_pipeline"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the files that take long before all others."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Looks for garbage from now on, but not in what was there before the tests."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Lets go of all at the end: of what is frozen, libraries say that it leaked."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Saves a tiny model of a family and task, once: ``tiny_folder("bert", "masked_lm")``."""

    @cache
    def save(family: str, task: str = "classification") -> Path:
        return save_tiny(tmp_path_factory.mktemp(f"{family}-{task}"), family, task)

    return save


@pytest.fixture(scope="session")
def tiny(tiny_folder: Callable[[str, str], Path]) -> LoadTiny:
    """Loads a tiny model, once: ``tiny("bert", "masked_lm", "float64")``."""

    @cache
    def load(family: str, task: str = "classification", dtype: str = "float32") -> Model:
        return load_model(tiny_folder(family, task), dtype=dtype)

    return load


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny BERT, the positions of which attend to no later one; its [MASK] is read all the same.

    So there are tokens after the position read out, from which nothing comes there.
    """
    folder = save_tiny(tmp_path_factory.mktemp("causal"), "bert", "masked_lm")
    model = load_model(folder, dtype="float64")
    model.network.config.is_decoder = True
    model.network.config.save_pretrained(folder)
    return replace(model, anatomy=replace(model.anatomy, causal=True))


@pytest.fixture(scope="session")
def golden() -> LoadTiny:
    """Loads a model of ``tests/goldens``, once: ``golden("bert-golden", "float64")``."""

    @cache
    def load(name: str, dtype: str = "float32") -> Model:
        return load_model(GOLDENS / name, dtype=dtype)

    return load


@pytest.fixture
def padding_at_will(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets instances of any lengths share a batch, so that tests of padding do pad."""
    monkeypatch.setattr("attribeam.transforms.inputs.batch._MOST_PADDING", float("inf"))


@pytest.fixture
def most_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows of each run of a model; the first is the most that there is memory for."""
    seen = [1_000_000]
    run = Model.run

    def counting(model: Model, rows: Rows, **more: Any) -> Any:
        seen.append(len(rows))
        if len(rows) > seen[0]:
            raise torch.OutOfMemoryError("too many rows")
        return run(model, rows, **more)

    monkeypatch.setattr(Model, "run", counting)
    return seen
