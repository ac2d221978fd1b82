"""``attribeam completion``: what makes a shell complete commands, options and paths."""

import argparse


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for a shell.

    Args:
        parser: That of all commands.
        shell: One of ``shtab.SUPPORTED_SHELLS``.
    """
    import shtab

    for each in _parsers(parser):
        for action in each._actions:
            if action.dest in ("folder", "model", "dry_run"):
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.dest in ("corpus", "output", "config"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """A parser, and those of its commands."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found
