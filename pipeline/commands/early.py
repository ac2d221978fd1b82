"""What can be told to be wrong before torch and Beam are imported, which takes seconds.

Everything is checked again where it is used: here are only those of these checks that need nothing.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attribeam.pipeline.configuration import given_scores, listed, set_params
from attribeam.pipeline.options import check_option, declared
from attribeam.pipeline.places import check_corpus, check_model_folder
from attribeam.schemas.catalogue import catalogue, check_names


def check_early(arguments: argparse.Namespace, params: Mapping[str, Any]) -> None:
    """Checks single values, names of methods, and whether there is a model and a corpus.

    Args:
        arguments: Those of ``run`` and ``plan``.
        params: Parameters by method, of the configuration.

    Raises:
        UsageError: If a value can't be, or a method isn't there, a folder of a model, or a corpus.
    """
    for name, (said, _) in declared().items():
        check_option(f"--{name.replace('_', '-')}", getattr(arguments, name), said)
    named = [*listed(arguments.methods), *set_params(params, arguments.set)]
    given = {"all", *given_scores(getattr(arguments, "scores", []))}
    check_names((name for name in named if name not in given), catalogue())
    if not Path(arguments.model).is_dir():
        check_model_folder(arguments.model)
    check_corpus(arguments.corpus)
