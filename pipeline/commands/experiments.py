"""Commands that go on from the heads of a run: ``prune``, ``triggers`` and ``attack``."""

import argparse
import shlex
import sys
from typing import Any

from attribeam.pipeline.commands.saying import counted, quiet, tell
from attribeam.pipeline.commands.status import DONE, FAILED
from attribeam.pipeline.configuration import columns_of
from attribeam.schemas import UsageError


def prune_command(arguments: argparse.Namespace) -> int:
    """Prunes heads in the order of their attribution."""
    options = _held_out_options(arguments)
    from attribeam.analysis.query.terminal import print_rows
    from attribeam.pipeline.experiments.held_out import left_out
    from attribeam.pipeline.experiments.prune import by_rate, prune

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} models", end="\n" * (done == total), file=sys.stderr)

    result = prune(options, rates=arguments.rates, seeds=arguments.seeds, progress=show)
    for note in result.held_out.notes:
        tell(note)
    print(
        f"accuracy on {counted(len(result.held_out.instances), 'text')} of "
        f"{result.held_out.corpus}, heads ranked on {result.ranked_on} of the run"
    )
    for line in left_out(result.held_out):
        print(line)
    print_rows(*by_rate(result.rows), sys.stdout)
    print(f"\ntable:  {result.path}")
    print(f"next:   attribeam plot {shlex.quote(arguments.folder)} pruning")
    return FAILED if result.held_out.failures else DONE


def triggers_command(arguments: argparse.Namespace) -> int:
    """Lists the triggers of a run."""
    from attribeam.analysis.opening.runs import reading
    from attribeam.analysis.query.terminal import print_rows
    from attribeam.analysis.triggers import Candidate, class_of, heads_of, trigger_candidates

    manifest = heads_of(arguments.folder, arguments.method)
    if arguments.limit < 1:
        raise UsageError(f"--limit is at least 1, not {arguments.limit}")
    labels = manifest["identity"]["model"]["labels"] or []
    with reading(arguments.folder) as connection:
        found = trigger_candidates(
            connection,
            arguments.method,
            target=class_of(arguments.target, labels),
            least=arguments.least,
            both=arguments.both,
            limit=arguments.limit,
        )
    named = dict(enumerate(labels))
    rows = [[*each[:4], named.get(each.explained, str(each.explained))] for each in found]
    print_rows(Candidate._fields[:5], rows, sys.stdout)
    return DONE


def attack_command(arguments: argparse.Namespace) -> int:
    """Puts triggers into other texts."""
    options = _held_out_options(arguments)
    from attribeam.analysis.query.terminal import print_rows
    from attribeam.pipeline.experiments.attack import attack, successes
    from attribeam.pipeline.experiments.held_out import left_out

    result = attack(
        options,
        triggers=arguments.triggers,
        target=arguments.target,
        least=arguments.least,
        both=arguments.both,
    )
    for note in result.held_out.notes:
        tell(note)
    number = counted(len(result.held_out.instances), "text")
    print(f"triggers of the run in {number} of {result.held_out.corpus}")
    for line in left_out(result.held_out):
        print(line)
    print_rows(*successes(result), sys.stdout)
    print(f"\ntable:  {result.path}")
    print(f'next:   attribeam query {shlex.quote(arguments.folder)} "from attack_success"')
    return FAILED if result.held_out.failures else DONE


def _held_out_options(arguments: argparse.Namespace) -> Any:
    if not arguments.corpus:
        raise UsageError(f"--corpus is needed (`attribeam {arguments.command} --help`)")
    quiet(verbose=False)
    from attribeam.pipeline.experiments.held_out import HeldOutOptions

    given = vars(arguments)
    return HeldOutOptions(
        **{name: given[name] for name in HeldOutOptions.__dataclass_fields__ if name in given},
        columns=columns_of(given),
    )
