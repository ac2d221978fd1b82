"""``attribeam plan``."""

import argparse
import sys
from collections.abc import Sequence

from attribeam.pipeline.commands.early import check_early
from attribeam.pipeline.commands.run import configured
from attribeam.pipeline.commands.saying import loading, quiet, tell
from attribeam.pipeline.commands.status import DONE
from attribeam.pipeline.configuration import run_options


def plan_command(parser: argparse.ArgumentParser, given: Sequence[str], others: list[str]) -> int:
    """Estimates what a run would take; returns the exit status."""
    arguments, params = configured(parser, given, ("model", "corpus"))
    check_early(arguments, params)
    loading(arguments.model)
    quiet(verbose=arguments.verbose)
    arguments.output = arguments.output or ""
    from attribeam.pipeline.planning.estimate import estimate_run
    from attribeam.pipeline.planning.report import print_estimate

    estimate = estimate_run(
        run_options(arguments, params, others),
        arguments.device,
        sample=arguments.sample,
        price=arguments.price_per_hour,
        # What reads JSON reads nothing else.
        tell=lambda note: tell(note, sys.stderr if arguments.format == "json" else sys.stdout),
    )
    print_estimate(estimate, arguments.format, sys.stdout)
    return DONE
