"""The command line: ``attribeam run | query | verify | plot | prune | attack | check | ...``.

torch, transformers and Beam are imported only by the commands that need them, so that a query
answers at once.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attribeam.pipeline.__main__ import interrupted
from attribeam.pipeline.__main__ import main as process
from attribeam.pipeline.commands.arguments import parsers
from attribeam.pipeline.commands.completion import completion
from attribeam.pipeline.commands.experiments import (
    attack_command,
    check_command,
    prune_command,
    triggers_command,
)
from attribeam.pipeline.commands.importing import import_command
from attribeam.pipeline.commands.methods import methods_command
from attribeam.pipeline.commands.plan import plan_command
from attribeam.pipeline.commands.results import (
    compact_command,
    open_command,
    plot_command,
    publish_command,
    query_command,
    report_command,
    show_command,
    verify_command,
)
from attribeam.pipeline.commands.run import run_command
from attribeam.pipeline.commands.saying import tell_unfinished
from attribeam.pipeline.commands.status import DONE, FAILED, INTERRUPTED, USAGE
from attribeam.pipeline.interruption import lastly
from attribeam.schemas import UsageError
from attribeam.schemas.errors import cut, one_line

# Characters of a message: a query's errors show the query.
_LONGEST = 4000
# The commands whose answers lack what a run has not done yet. The report says so on its page.
_OF_A_RUN = ("query", "show", "open", "plot", "prune", "triggers", "attack", "check")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    Args:
        argv: The command's words; None takes the process's, which signals then may end.
    """
    if argv is None:
        return process()
    try:
        return _main(list(argv))
    except UsageError as error:
        from attribeam.analysis.query.terminal import harmless  # It may cite a corpus or a model.

        print(f"attribeam: {harmless(cut(str(error), _LONGEST))}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(interrupted(argv), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; so that Python doesn't complain on its way out either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # A disk that is full or goes away, whoever is at it.
        print(f"attribeam: stopped: {one_line(str(error))}", file=sys.stderr)
        return FAILED


def _main(given: list[str]) -> int:
    parser, run_parser, plan_parser = parsers()
    # Before torch is imported: threads that spin while they wait for each other make it many times
    # slower on a machine that has other work to do, and hardly faster on one that hasn't.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments, others = parser.parse_known_args(given)
    if others and arguments.command not in ("run", "plan"):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if arguments.command == "run":
        return run_command(run_parser, given[given.index("run") + 1 :], others)
    if arguments.command == "plan":
        return plan_command(plan_parser, given[given.index("plan") + 1 :], others)
    commands = {
        "import": import_command,
        "query": query_command,
        "show": show_command,
        "verify": verify_command,
        "compact": compact_command,
        "open": open_command,
        "plot": plot_command,
        "publish": publish_command,
        "report": report_command,
        "prune": prune_command,
        "triggers": triggers_command,
        "attack": attack_command,
        "check": check_command,
        "methods": methods_command,
    }
    if arguments.command == "completion":
        print(completion(parser, arguments.shell))
        return DONE
    if arguments.command in _OF_A_RUN:
        tell_unfinished(arguments.folder)
    with _none_spilled():
        return commands[arguments.command](arguments)


@contextmanager
def _none_spilled() -> Iterator[None]:
    """Nothing that queries have spilled is there after the body, even if a signal ends it."""

    def remove() -> None:
        # Whoever spills has imported it.
        if "attribeam.analysis" in sys.modules:
            from attribeam.analysis.opening.spill import remove_spilled

            remove_spilled()

    with lastly(remove):
        try:
            yield
        finally:
            remove()


if __name__ == "__main__":
    sys.exit(main())
