"""The command ``import``: a run's folder of scores that others computed."""

import argparse
import shlex

from attribeam.pipeline.commands.saying import counted, quiet, tell
from attribeam.pipeline.commands.status import DONE, FAILED
from attribeam.pipeline.configuration import given_scores, listed


def import_command(arguments: argparse.Namespace) -> int:
    """Imports scores, and says what has become of them."""
    scores = given_scores(arguments.scores)
    quiet(verbose=False)
    from attribeam.pipeline.importing.importing import ImportOptions, import_scores

    options = ImportOptions(
        output=arguments.output.rstrip("/"),
        scores=scores,
        corpus=arguments.corpus,
        labels=None if arguments.labels is None else listed(arguments.labels),
        model=arguments.model,
        pad=arguments.pad_id,
    )
    done = import_scores(options, tell)
    ask = f"attribeam query {shlex.quote(options.output)}"
    what = f"{counted(done.instances, 'instance')}, {counted(len(scores), 'method')}"
    print(f"nothing left to do: {what}" if done.there else what)
    if done.failures:
        print(f'{counted(done.failures, "failure")}: {ask} "from failure_summary"')
    print(f"tables: {options.output}")
    print(f'next:   {ask} "from tokens"')
    return FAILED if done.failures else DONE
