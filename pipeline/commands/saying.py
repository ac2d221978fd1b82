"""What people see of a command beside its answer."""

import logging
import os
import sys
from contextlib import suppress
from typing import IO

from attribeam.schemas import UsageError


def tell(note: str, out: IO[str] | None = None) -> None:
    """Shows what was guessed of a corpus, which may say anything, as a line."""
    from attribeam.analysis.query.terminal import harmless

    print(" ".join(harmless(note).split()), file=out or sys.stdout, flush=True)


def loading(model: str) -> None:
    """Says to whom waits at a terminal what takes the first seconds."""
    if sys.stderr.isatty():
        print(f"loading torch, Beam and {model} ...", file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """A number and what it is of."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def tell_unfinished(folder: str) -> None:
    """Says what a run has not done yet, of which an answer then lacks it."""
    from attribeam.analysis.opening.files import unfinished
    from attribeam.analysis.opening.remote import is_remote

    # Elsewhere it takes a listing more; on a hub, runs are published, which are whole or say so.
    if is_remote(folder) and folder.startswith("hf:"):
        return
    with suppress(UsageError, OSError):  # Which the command itself raises, in its turn.
        if sentence := unfinished(folder):
            print(f"{folder} is {sentence}", file=sys.stderr)


def quiet(*, verbose: bool) -> None:
    """Keeps the libraries' chatter off the terminal."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Beam logs what it raises, with a traceback, in part through the root logger.
    level = logging.INFO if verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", force=True)
    if not verbose:
        import datasets
        import huggingface_hub
        import transformers

        huggingface_hub.logging.set_verbosity_error()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        datasets.disable_progress_bars()
