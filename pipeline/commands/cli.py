"""The command line: ``attribeam run | query | verify | plot | prune | triggers | attack | ...``.

torch, transformers and Beam are imported only by the commands that need them, so that a query
answers at once.
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from textwrap import wrap
from typing import IO, Any

from attribeam.pipeline.__main__ import interrupted
from attribeam.pipeline.__main__ import main as process
from attribeam.pipeline.commands.arguments import parsers
from attribeam.pipeline.configuration import columns_of, listed, read_config, run_options
from attribeam.pipeline.interruption import lastly
from attribeam.schemas import UsageError
from attribeam.schemas.errors import cut, one_line

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
# Characters of a message: a query's errors show the query.
_LONGEST = 4000
# The commands whose answers lack what a run has not done yet. The report says so on its page.
_OF_A_RUN = ("query", "open", "plot", "prune", "triggers", "attack")


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
        return _run(run_parser, given[given.index("run") + 1 :], others)
    if arguments.command == "plan":
        return _plan(plan_parser, given[given.index("plan") + 1 :], others)
    commands = {
        "query": _query,
        "verify": _verify,
        "open": _open,
        "plot": _plot,
        "publish": _publish,
        "report": _write_report,
        "prune": _prune,
        "triggers": _triggers,
        "attack": _attack,
        "methods": _methods,
    }
    if arguments.command in _OF_A_RUN:
        _tell_unfinished(arguments.folder)
    with _none_spilled():
        return commands[arguments.command](arguments)


# Commands -------------------------------------------------------------------------------------


def _configured(
    parser: argparse.ArgumentParser, given: Sequence[str], needed: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The arguments with those of the configuration in them, and what it sets of methods."""
    settings = parser.parse_known_args(given)[0]
    config = read_config(settings.config, parser)
    parser.set_defaults(**{key: value for key, value in config.items() if key != "set"})
    arguments = parser.parse_known_args(given)[0]
    _quiet(verbose=arguments.verbose)
    for name in needed:
        if not getattr(arguments, name):
            raise UsageError(f"--{name} is needed (`{parser.prog} --help`)")
    return arguments, config.get("set", {})


def _plan(parser: argparse.ArgumentParser, given: Sequence[str], others: list[str]) -> int:
    arguments, params = _configured(parser, given, ("model", "corpus"))
    arguments.output = arguments.output or ""
    from attribeam.pipeline.planning.estimate import estimate_run
    from attribeam.pipeline.planning.report import print_estimate

    estimate = estimate_run(
        run_options(arguments, params, others),
        arguments.device,
        sample=arguments.sample,
        price=arguments.price_per_hour,
        # What reads JSON reads nothing else.
        tell=lambda note: _tell(note, sys.stderr if arguments.format == "json" else sys.stdout),
    )
    print_estimate(estimate, arguments.format, sys.stdout)
    return DONE


def _run(parser: argparse.ArgumentParser, given: Sequence[str], others: list[str]) -> int:
    arguments, params = _configured(parser, given, ("model", "corpus", "output"))
    # Beam's own usage text would hide ours; and these are slow imports.
    from attribeam.pipeline.running.job import cause, run
    from attribeam.pipeline.workers.engines import is_dry_run

    options = run_options(arguments, params, others)
    try:
        summary = run(options, _tell)
    except Exception as error:
        reason = cause(error)
        if reason is None:
            raise
        remedy = "" if "--repair" in reason else "; the same command continues"
        print(
            f"attribeam: stopped: {cut(reason)}\nWhat is committed is kept{remedy}", file=sys.stderr
        )
        return FAILED
    if is_dry_run(options):
        print("dry run: the job was built and checked, and not sent; nothing was attributed")
        return DONE
    _report(summary)
    # Where an instance has nothing to remove, nothing has gone wrong.
    return FAILED if summary.failures > summary.outcome.bare or summary.left else DONE


def _query(arguments: argparse.Namespace) -> int:
    from attribeam.analysis import run_query

    run_query(
        arguments.folder,
        arguments.sql,
        arguments.format,
        external_access=arguments.external_access,
        others=_others(arguments.others),
    )
    return DONE


def _others(given: Sequence[str]) -> dict[str, str]:
    """Other runs by the names that a query has for them."""
    others: dict[str, str] = {}
    for each in given:
        name, is_there, folder = each.partition("=")
        if not (is_there and folder) or name in others:
            raise UsageError(f"--with takes NAME=DIR, each name once, and not {each!r}")
        others[name] = folder
    return others


def _open(arguments: argparse.Namespace) -> int:
    from attribeam.analysis import write_database

    path = write_database(arguments.folder)
    print(f"cd {shlex.quote(str(path.parent))} && duckdb {path.name}")
    return DONE


def _verify(arguments: argparse.Namespace) -> int:
    from attribeam.analysis import print_report, verify

    report = verify(arguments.folder)
    print_report(report, sys.stdout)
    return FAILED if report.problems else DONE


def _write_report(arguments: argparse.Namespace) -> int:
    from attribeam.analysis.report.report import write_report  # plotly takes a while.

    print(write_report(arguments.folder, arguments.output, limit=arguments.limit))
    return DONE


def _publish(arguments: argparse.Namespace) -> int:
    from attribeam.analysis.publish.publish import publish  # The hub's library takes a while.
    from attribeam.analysis.query.terminal import harmless

    done = publish(
        arguments.folder,
        arguments.repo_id,
        methods=None if arguments.methods is None else listed(arguments.methods),
        license=arguments.license,
        languages=listed(arguments.language),
        title=arguments.title,
        private=arguments.private,
        allow_incomplete=arguments.allow_incomplete,
        dry_run=arguments.dry_run,
        tell=lambda warning: print(f"warning: {harmless(warning)}", file=sys.stderr),
    )
    print(f"{done.files} files, {done.size / 1e6:.1f} MB, {len(done.configs)} configs")
    print(f"folder: {done.folder}" if done.url is None else f"data set: {done.url}")
    return DONE


def _plot(arguments: argparse.Namespace) -> int:
    from attribeam.analysis.plots.plots import plot  # plotly takes a while.

    path = plot(
        arguments.folder,
        arguments.name,
        arguments.output,
        method=arguments.method,
        subset=arguments.subset,
    )
    print(path)
    return DONE


def _prune(arguments: argparse.Namespace) -> int:
    options = _held_out_options(arguments)
    from attribeam.analysis.query.terminal import print_rows
    from attribeam.pipeline.experiments.held_out import left_out
    from attribeam.pipeline.experiments.prune import by_rate, prune

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} models", end="\n" * (done == total), file=sys.stderr)

    result = prune(options, rates=arguments.rates, seeds=arguments.seeds, progress=show)
    for note in result.held_out.notes:
        _tell(note)
    print(
        f"accuracy on {_counted(len(result.held_out.instances), 'text')} of "
        f"{result.held_out.corpus}, heads ranked on {result.ranked_on} of the run"
    )
    for line in left_out(result.held_out):
        print(line)
    print_rows(*by_rate(result.rows), sys.stdout)
    print(f"\ntable:  {result.path}")
    print(f"next:   attribeam plot {shlex.quote(arguments.folder)} pruning")
    return FAILED if result.held_out.failures else DONE


def _triggers(arguments: argparse.Namespace) -> int:
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


def _attack(arguments: argparse.Namespace) -> int:
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
        _tell(note)
    number = _counted(len(result.held_out.instances), "text")
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
    _quiet(verbose=False)
    from attribeam.pipeline.experiments.held_out import HeldOutOptions

    given = vars(arguments)
    return HeldOutOptions(
        **{name: given[name] for name in HeldOutOptions.__dataclass_fields__ if name in given},
        columns=columns_of(given),
    )


def _methods(_: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape

    from attribeam.transforms.registry import DEFINED_BY, methods, values_of

    console = Console(highlight=False)

    def show(text: str, style: str | None = None) -> None:
        for line in wrap(text, console.width - 4, break_on_hyphens=False):
            console.print(f"    {escape(line)}", style=style)

    for method in methods().values():
        facts = {
            "signed": method.signed,
            "class-dependent": method.class_dependent,
            "class-independent": not method.class_dependent,
            "additive": method.additive,
            "stochastic": method.stochastic,
            "by layer": method.layered is not None,
        }
        listed = ", ".join(name for name, true in facts.items() if true)
        console.print(f"[bold]{method.name}[/bold]  cost {escape(method.cost)}; {listed}")
        show(f"{method.equation}  ({method.paper})")
        needs = method.needs(method.params({}))
        show("needs " + (", ".join(map(str, needs)) or "no pass"))
        for trait in method.requires:
            show(DEFINED_BY[trait])
        if method.opt_in is not None:
            show(f"not among `all`: {method.opt_in}", "yellow")
        for name, default in method.defaults.items():
            show(f"--set {method.name}.{name}={values_of(default)}", "dim")
        for name, preset in method.presets.items():
            listed = ", ".join(f"{key}={value}" for key, value in preset.items())
            show(f"--set {method.name}.preset={name}: {listed}", "dim")
    return DONE


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


# What people see ------------------------------------------------------------------------------


def _report(summary: Any) -> None:
    done, folder = summary.shards - summary.worked, shlex.quote(summary.output)
    if not summary.worked:
        print(f"nothing left to do: {_counted(summary.shards, 'shard')} complete already")
    else:
        before = f" ({done} more were there already)" if done else ""
        print(
            f"{_counted(summary.rows, 'row')} in {_counted(summary.shards, 'shard')}; "
            f"{summary.worked} worked on{before} in {summary.seconds:.1f} s"
        )
    for sentence in summary.left:
        print(f"attribeam: {cut(sentence)}", file=sys.stderr)
    if summary.damaged:
        print(f"made again, since they were damaged: {_counted(summary.damaged, 'file')}")
    found = summary.outcome
    ask = f"attribeam query {folder}"
    if found.failures and found.attributed:
        number = _counted(found.failures, "failure")
        bare = f" ({found.bare} with nothing to remove)" if found.bare else ""
        print(f'{number}{bare}: {ask} "from failure_summary"')
        print(_reason(found, "they all say" if len(found.reasons) == 1 else "most often"))
    if found.passing:
        what = "for want of memory, a network or a device"
        print(f"{found.passing} {what}: the same command with --retry-failed tries them again")
    print(f"tables: {summary.output}")
    view = "faithfulness" if found.evaluated else "cost"
    if found.failures and not found.attributed:
        what = "nothing was attributed" if found.predicted else "every row failed"
        print(_reason(found, what))
        view = "failure_summary"
    print(f'next:   {ask} "from {view}"')


def _reason(found: Any, what: str) -> str:
    """A line on the most frequent reason for failures."""
    from attribeam.analysis.query.terminal import harmless

    reason = found.reasons[0]
    share = "" if reason.number == found.failures else f"{reason.number} of {found.failures}"
    alike = "" if reason.alike else "with other numbers or names"
    details = ", ".join(each for each in (share, alike) if each)
    return f"{what}{f' ({details})' if details else ''}: {harmless(reason.message)}"


def _tell(note: str, out: IO[str] | None = None) -> None:
    """Shows what was guessed of a corpus, which may say anything, as a line."""
    from attribeam.analysis.query.terminal import harmless

    print(" ".join(harmless(note).split()), file=out or sys.stdout, flush=True)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _tell_unfinished(folder: str) -> None:
    from attribeam.analysis.opening.files import unfinished
    from attribeam.analysis.opening.remote import is_remote

    # Elsewhere it takes a listing more; on a hub, runs are published, which are whole or say so.
    if is_remote(folder) and folder.startswith("hf:"):
        return
    with suppress(UsageError, OSError):  # Which the command itself raises, in its turn.
        if sentence := unfinished(folder):
            print(f"{folder} is {sentence}", file=sys.stderr)


def _quiet(*, verbose: bool) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
