"""From what was typed, and a configuration file, to the options of a run."""

import argparse
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from schemas import UsageError

# Options that a configuration may also give as lists.
_LISTS = ("methods", "fractions", "orders", "operations")


def run_options(arguments: argparse.Namespace, params: Mapping[str, Any], others: list[str]) -> Any:
    """The options of a run, with what a configuration's ``set`` says of methods and Beam's rest."""
    from pipeline.options import Options

    given = vars(arguments)
    same = [name for name in Options.__dataclass_fields__ if name in given]
    return Options(
        **{name: given[name] for name in same},
        params=_params(params, arguments.set),
        columns=columns_of(given),
        evaluation=_evaluation(arguments) if arguments.evaluate else None,
        beam=others,
    )


def columns_of(given: Mapping[str, Any]) -> dict[str, str]:
    """Column by role, of those that were named."""
    return {
        name.removesuffix("_column"): value
        for name, value in given.items()
        if name.endswith("_column") and value is not None
    }


def _evaluation(arguments: argparse.Namespace) -> Any:
    from transforms.perturb import Evaluation

    try:
        fractions = tuple(float(Fraction(text)) for text in listed(arguments.fractions))
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"--fractions is a list of numbers such as 0.1 or 1/9, not {arguments.fractions}"
        ) from None
    return Evaluation(
        fractions=tuple(sorted(set(fractions))),
        orders=tuple(listed(arguments.orders)),  # type: ignore[arg-type]
        operations=tuple(listed(arguments.operations or "")),  # type: ignore[arg-type]
        protocol=arguments.units,
    )


def listed(text: str) -> list[str]:
    """Items separated by commas, each once."""
    return list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def _params(config: Mapping[str, Any], sets: Sequence[str]) -> dict[str, dict[str, Any]]:
    params: dict[str, dict[str, Any]] = {}
    for method, values in config.items():
        if not isinstance(values, Mapping):
            raise UsageError(f"`set` in the configuration: {method} needs parameters and values")
        params[str(method)] = {str(name): value for name, value in values.items()}
    for text in sets:
        path, equals, value = text.partition("=")
        method, dot, name = path.partition(".")
        if not (equals and dot and method and name):
            raise UsageError(f"--set {text}: it is METHOD.PARAM=VALUE")
        params.setdefault(method.strip(), {})[name.strip()] = value.strip()
    return params


def read_config(path: str | None, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """A configuration file as values of the parser's options, and ``set``.

    Raises:
        UsageError: If it can't be read, or holds what is no option or no value of one.
    """
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path} can't be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("set", {}), dict):
        raise UsageError(f"--config {path} is not a mapping of options to values")
    config: dict[str, Any] = {"set": content.pop("set", {})}
    actions = {action.dest: action for action in parser._actions}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in actions or name in ("help", "config"):
            raise UsageError(f"--config {path}: there is no option {str(key)!r}")
        if value is not None:
            config[name] = _config_value(path, actions[name], value)
    return config


def _config_value(path: str, action: argparse.Action, value: Any) -> Any:
    """A value as the command line would have it, so that it is checked just the same."""
    flag = action.nargs == 0
    if isinstance(value, list) and action.dest in _LISTS:
        return ",".join(map(str, value))
    if isinstance(value, bool) != flag or not isinstance(value, bool | int | float | str):
        raise UsageError(f"--config {path}: {action.dest} can't be {value!r}")
    return value if flag else str(value)
