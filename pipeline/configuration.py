"""From what was typed, and a configuration file, to the options of a run."""

import argparse
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from attribeam.schemas import UsageError
from attribeam.schemas.errors import cut

# Options that a configuration may also give as lists.
_LISTS = ("methods", "fractions", "orders", "operations")
# Of few digits: what 1e999999999 is exactly, no memory holds.
_NUMBER = re.compile(
    r"[+-]?(\d{1,40}/\d{1,40}|(\d{1,40}\.?\d{0,40}|\.\d{1,40})(e[+-]?\d{1,2})?)", re.IGNORECASE
)
_MOST_BYTES = 1 << 20


def run_options(arguments: argparse.Namespace, params: Mapping[str, Any], others: list[str]) -> Any:
    """The options of a run, with what a configuration's ``set`` says of methods and Beam's rest."""
    from attribeam.pipeline.options import Options

    given = vars(arguments)
    same = [name for name in Options.__dataclass_fields__ if name in given and name != "scores"]
    return Options(
        **{name: given[name] for name in same},
        params=set_params(params, arguments.set),
        scores=given_scores(getattr(arguments, "scores", [])),
        columns=columns_of(given),
        evaluation=_evaluation(arguments) if arguments.evaluate else None,
        beam=others,
    )


def given_scores(texts: Sequence[str]) -> dict[str, str]:
    """Files of scores by the names that they are to have as methods.

    Raises:
        UsageError: If one is no NAME=FILE, or two have the same name.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, place = (part.strip() for part in text.partition("="))
        if not (name and equals and place) or name in found:
            raise UsageError(f"--scores takes NAME=FILE, each name once, and not {text!r}")
        found[name] = place
    return found


def columns_of(given: Mapping[str, Any]) -> dict[str, str]:
    """Column by role, of those that were named."""
    return {
        name.removesuffix("_column"): value
        for name, value in given.items()
        if name.endswith("_column") and value is not None
    }


def _evaluation(arguments: argparse.Namespace) -> Any:
    from attribeam.transforms.evaluate import ERASER, Evaluation

    named: dict[str, tuple[float, ...]] = {"eraser": ERASER, "each": ()}
    name = arguments.fractions.strip()
    try:
        fractions = named[name] if name in named else tuple(map(float, map(exact, listed(name))))
    except ValueError:
        raise UsageError(
            f"--fractions is a list of numbers such as 0.1 or 1/9, not {arguments.fractions}; "
            "or eraser or each"
        ) from None
    return Evaluation(
        fractions=tuple(sorted(set(fractions))),
        each=name == "each",
        orders=tuple(listed(arguments.orders)),  # type: ignore[arg-type]
        operations=tuple(listed(arguments.operations or "")),  # type: ignore[arg-type]
        protocol=arguments.units,
        draws=arguments.fills,
    )


def exact(text: str) -> Fraction:
    """A number such as 0.1 or 1/9, as it is written.

    Raises:
        ValueError: If it is none, or of more digits than anybody means.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{cut(text, 80)} is no number")
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError(f"{text} is no number") from error


def listed(text: str) -> list[str]:
    """Items separated by commas, each once."""
    return list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def set_params(config: Mapping[str, Any], sets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parameters by method, of a configuration and of ``--set``, which wins.

    Raises:
        UsageError: If one is none.
    """
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
    content = _yaml(path) or {}
    if not isinstance(content, dict) or not isinstance(content.get("set") or {}, dict):
        raise UsageError(f"--config {path} is not a mapping of options to values")
    config: dict[str, Any] = {"set": content.pop("set", None) or {}}
    actions = {action.dest: action for action in parser._actions}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in actions or name in ("help", "config"):
            raise UsageError(f"--config {path}: there is no option {str(key)!r}")
        if name in config:
            raise UsageError(f"--config {path} has {name} twice")
        if value is not None:
            config[name] = _config_value(path, actions[name], value)
    return config


def _yaml(path: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's own takes the last of several values of a key without a word."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            for number, key in enumerate(keys):
                if key in keys[:number]:
                    raise yaml.YAMLError(f"it has {key!r} twice")
            return super().construct_mapping(node, deep)

    try:
        with Path(path).open("rb") as handle:  # It may be a pipe, or a device without end.
            content = handle.read(_MOST_BYTES + 1)
        if len(content) <= _MOST_BYTES:
            return yaml.load(content.decode(), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"--config {path} can't be read: {error}") from error
    raise UsageError(f"--config {path} is larger than any configuration")


def _config_value(path: str, action: argparse.Action, value: Any) -> Any:
    """A value as the command line would have it, so that it is checked just the same."""
    flag = action.nargs == 0
    if action.dest == "scores" and isinstance(value, dict):
        return [f"{name}={place}" for name, place in value.items()]
    if isinstance(value, list) and action.dest in _LISTS:
        return ",".join(map(str, value))
    if isinstance(value, bool) != flag or not isinstance(value, bool | int | float | str):
        raise UsageError(f"--config {path}: {action.dest} can't be {value!r}")
    return value if flag else str(value)
