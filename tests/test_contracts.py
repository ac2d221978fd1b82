"""Who imports whom: the contracts in pyproject.toml, and what really gets loaded."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
FORBIDDEN = {
    package: frozenset(contract["forbidden_modules"])
    for contract in CONTRACTS
    if contract["type"] == "forbidden"
    for package in contract["source_modules"]
}


def test_what_the_contracts_forbid() -> None:
    pipeline, transforms, schemas, analysis = (
        f"attribeam.{name}" for name in ("pipeline", "transforms", "schemas", "analysis")
    )
    assert FORBIDDEN[schemas] >= {pipeline, transforms, analysis, "torch", "apache_beam"}
    assert FORBIDDEN[transforms] >= {pipeline, analysis, "apache_beam", "duckdb"}
    assert FORBIDDEN[analysis] >= {pipeline, transforms, "torch", "apache_beam"}


def modules_after(code: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after running some code."""
    code += "\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nothing_forbidden_is_loaded(package: str) -> None:
    code = (
        "from importlib import import_module; from pkgutil import walk_packages\n"
        f"package = import_module({package!r})\n"
        f"for module in walk_packages(package.__path__, {package + '.'!r}):\n"
        "    import_module(module.name)"
    )
    loaded = modules_after(code)
    assert package in loaded
    assert loaded.isdisjoint(FORBIDDEN[package])


def test_the_import_contracts_are_kept() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
