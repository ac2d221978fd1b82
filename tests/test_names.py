"""What people import: one name, which loads what it is asked for and nothing else."""

from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest

import attribeam
from tests.test_contracts import modules_after

HEAVY = {"torch", "transformers", "apache_beam", "datasets", "duckdb", "pyarrow", "numpy"}


@pytest.mark.parametrize("name", attribeam.__all__)
def test_each_name_is_what_its_home_has(name: str) -> None:
    assert getattr(attribeam, name) is resolve_name(f"{attribeam._HOME[name]}:{name}")
    assert name in dir(attribeam)


def test_there_are_no_others() -> None:
    assert set(attribeam._HOME) == set(attribeam.__all__)
    with pytest.raises(AttributeError, match="'attribeam' has no attribute 'explained'"):
        attribeam.explained  # noqa: B018


def test_what_each_name_loads() -> None:
    loaded = modules_after("import attribeam as ab")
    assert "attribeam" in loaded
    assert loaded.isdisjoint(HEAVY | {f"attribeam.{name}" for name in ("schemas", "analysis")})
    loaded = modules_after("import attribeam as ab; ab.open_run, ab.verify")
    assert "duckdb" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "apache_beam"})
    loaded = modules_after("import attribeam as ab; ab.load_model, ab.encode, ab.attribute")
    assert "torch" in loaded
    assert loaded.isdisjoint({"apache_beam", "duckdb"})


def test_no_room_is_called_as_what_its_package_exports() -> None:
    """It would take its place, or be hidden by it."""
    for package in ("", ".pipeline", ".transforms", ".schemas", ".analysis"):
        module = import_module(f"attribeam{package}")
        assert module.__file__ is not None
        rooms = {path.parent.name for path in Path(module.__file__).parent.glob("*/__init__.py")}
        # Loaded before the function, which is exported in its place.
        rooms -= {"methods"}
        assert rooms.isdisjoint(module.__all__)
