"""Commands that go on from a finished run: ``prune``, ``triggers``, ``attack`` and ``check``."""

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


def check_command(arguments: argparse.Namespace) -> int:
    """Asks a run's model again, to see whether its explanations can be believed."""
    quiet(verbose=False)
    from attribeam.analysis.query.terminal import print_rows
    from attribeam.pipeline.experiments.check import CheckOptions, open_check
    from attribeam.pipeline.experiments.check_plan import plan_check

    given = vars(arguments)
    names = CheckOptions.__dataclass_fields__
    check = open_check(CheckOptions(**{name: given[name] for name in names if name in given}))
    for method, why in check.again.unable.items():
        tell(f"left out: {method}, which can't be asked again: {why}")
    steps = check.steps()
    number = counted(len(check.instances), "instance")
    if arguments.plan:
        rows: list[list[Any]] = [
            [c.table, c.steps, round(c.runs, 2), c.forwards, round(c.seconds, 1)]
            for c in plan_check(check, steps)
        ]
        columns = list(zip(*rows, strict=True))[1:] or [()] * 4
        total = [sum(column) for column in columns]
        print(f"{number}, {counted(len(check.methods), 'method')}")
        names_of = ("table", "steps", "runs of the methods", "other forward passes", "seconds")
        print_rows(names_of, [*rows, ["total", *total]], sys.stdout)
        return DONE
    failed = 0
    for done, step in enumerate(steps, 1):
        failed += check.run(step)
        if sys.stderr.isatty():
            end = "\n" * (done == len(steps))
            print(f"\r{done} of {len(steps)} steps", end=end, file=sys.stderr)
    print(f"{number}: {counted(len(steps), 'step')} done" if steps else "nothing is left to do")
    if failed:
        print(f"{counted(failed, 'row')} failed: the column `failure` says why")
    views = ("randomisation", "infidelity", "sensitivity", "reliability")
    tables = dict(zip(("randomise", "subsets", "noise", "repeats"), views, strict=True))
    for name in check.names:
        print(f'next:   attribeam query {shlex.quote(arguments.folder)} "from {tables[name]}"')
    return FAILED if failed else DONE


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
