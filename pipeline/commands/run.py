"""``attribeam run``, and what it says in the end."""

import argparse
import io
import shlex
import shutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from attribeam.pipeline.commands.early import check_early
from attribeam.pipeline.commands.saying import counted, loading, quiet, tell
from attribeam.pipeline.commands.status import DONE, FAILED
from attribeam.pipeline.configuration import listed, read_config, run_options
from attribeam.schemas import UsageError
from attribeam.schemas.errors import cut

# Rows of a corpus of whose curves a ranking takes seconds.
_RANKED = 10_000


def run_command(parser: argparse.ArgumentParser, given: Sequence[str], others: list[str]) -> int:
    """Attributes a corpus; returns the exit status."""
    arguments, params = configured(parser, given, ("model", "corpus", "output"))
    check_early(arguments, params)
    loading(arguments.model)
    quiet(verbose=arguments.verbose)
    # Beam's own usage text would hide ours; and these are slow imports.
    from attribeam.pipeline.running.job import cause, run
    from attribeam.pipeline.workers.engines import is_dry_run

    options = run_options(arguments, params, others)
    try:
        summary = run(options, tell)
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


def configured(
    parser: argparse.ArgumentParser, given: Sequence[str], needed: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The arguments with those of the configuration in them, and what it sets of methods."""
    settings, others = parser.parse_known_args(given)
    config = read_config(settings.config, parser)
    parser.set_defaults(**{key: value for key, value in config.items() if key != "set"})
    arguments = parser.parse_known_args(given)[0]
    _check_others(parser, others)
    for name in needed:
        if not getattr(arguments, name):
            raise UsageError(f"--{name} is needed (`{parser.prog} --help`)")
    own = config.get("set", {})
    chosen = listed(arguments.methods)
    if "methods" in config and arguments.methods != config["methods"] and "all" not in chosen:
        # Of a configuration's methods others were named here: it says nothing of these.
        own = {name: params for name, params in own.items() if name in chosen}
    return arguments, own


def _check_others(parser: argparse.ArgumentParser, others: Sequence[str]) -> None:
    """Refuses what looks like an option of ours: Beam, which is given the others, would drop it."""
    known = [flag for action in parser._actions for flag in action.option_strings]
    for word in others:
        flag = word.partition("=")[0]
        near = get_close_matches(flag, known, 1, cutoff=0.85) if flag.startswith("--") else []
        if near:
            raise UsageError(f"there is no option {flag}; did you mean {near[0]}?")


def _report(summary: Any) -> None:
    print(_done(summary))
    if summary.rest is not None:
        print(_rest(summary))
    for sentence in summary.left:
        print(f"attribeam: {cut(sentence)}", file=sys.stderr)
    if summary.damaged:
        print(f"made again, since they were damaged: {counted(summary.damaged, 'file')}")
    found = summary.outcome
    ask = asked(summary.output)
    if found.failures and found.attributed:
        number = counted(found.failures, "failure")
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
    elif found.evaluated and summary.worked:
        _rank(summary)
    print(f'next:   {ask} "from {view}"')


def _rank(summary: Any) -> None:
    """Shows which methods are the most faithful, where that takes no while; else says why not."""
    from attribeam.analysis.query.query import run_query

    if reason := _unranked(summary):
        print(f'methods are not ranked here, {reason}: {asked(summary.output)} "from ranking"')
        return
    out = io.StringIO()
    try:
        run_query(summary.output, "from ranking", out=out, width=_width())
    except UsageError as error:
        print(f"attribeam: the methods can't be ranked: {cut(str(error))}", file=sys.stderr)
        return
    print(f"\n{out.getvalue()}")


def _unranked(summary: Any) -> str | None:
    """Why the methods of a run with curves aren't ranked at its end; None if they are."""
    if summary.left:
        return "since damaged files or failures were left, as is said"
    if summary.part is not None:
        # What is there is a part of what methods are compared on.
        done = not summary.rest.shards
        return "since this was a part of the run" + ("" if done else "; once all parts are done")
    if "://" in summary.output:
        return "since all curves would be fetched for it"
    if summary.rows > _RANKED:
        return f"since of {summary.rows:,} rows (more than {_RANKED:,}) it may take a while"
    return None


def _width() -> int:
    """Characters of a line, which narrow pages have room for where nobody says."""
    return shutil.get_terminal_size((80, 24)).columns


def _done(summary: Any) -> str:
    """A line on what the call was for, and what it had to do of it."""
    shards = counted(summary.shards, "shard")
    own = shards
    if summary.part is not None:
        own = f"part {summary.part}, {summary.own} of {shards}"
    if not summary.own:
        return f"nothing to do for part {summary.part}: the run has {shards}"
    if not summary.worked:
        return f"nothing left to do: {own} complete already"
    there = summary.own - summary.worked
    before = f" ({there} more were there already)" if there else ""
    what = f"{counted(summary.rows, 'row')} in {shards}" if summary.part is None else own
    return f"{what}; {summary.worked} worked on{before} in {summary.seconds:.1f} s"


def _rest(summary: Any) -> str:
    """A line on what other parts of the run have left."""
    shards, files = summary.rest
    if not shards:
        return "the whole run is done"
    return (
        f"of the whole run, {shards} of {counted(summary.shards, 'shard')} are not done yet: "
        f"{counted(files, 'file')} missing"
    )


def _reason(found: Any, what: str) -> str:
    """A line on the most frequent reason for failures."""
    from attribeam.analysis.query.terminal import harmless

    reason = found.reasons[0]
    share = "" if reason.number == found.failures else f"{reason.number} of {found.failures}"
    alike = "" if reason.alike else "with other numbers or names"
    details = ", ".join(each for each in (share, alike) if each)
    return f"{what}{f' ({details})' if details else ''}: {harmless(reason.message)}"


def asked(output: str) -> str:
    """The command that asks a run, which at stores that queries don't read takes a copy first."""
    from attribeam.analysis.opening.remote import is_remote

    if "://" in output and not is_remote(output):
        return f"(of a copy of {output}) attribeam query COPY"
    return f"attribeam query {shlex.quote(output)}"
