"""The command line: ``attribeam run | query | verify | plot | prune | triggers | attack | ...``.

torch, transformers and Beam are imported only by the commands that need them, so that a query
answers at once.
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from textwrap import wrap
from typing import Any

from schemas import UsageError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Options that a configuration may also give as lists.
_LISTS = ("methods", "fractions", "orders", "operations")
_FRACTIONS = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    parser, run_parser = _parsers()
    given = list(sys.argv[1:] if argv is None else argv)
    # Before torch is imported: threads that spin while they wait for each other make it many times
    # slower on a machine that has other work to do, and hardly faster on one that hasn't.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments, others = parser.parse_known_args(given)
    if others and arguments.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    try:
        if arguments.command == "run":
            return _run(run_parser, given[given.index("run") + 1 :], others)
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
        return commands[arguments.command](arguments)
    except UsageError as error:
        print(f"attribeam: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("attribeam: interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; so that Python doesn't complain on its way out either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


# Options --------------------------------------------------------------------------------------


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="attribeam",
        description="Turns a corpus into attribution tables, and answers questions about them.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="attribute a corpus, or continue or add methods to a run",
        description="Attributes a corpus into Parquet tables. Running the same command again "
        "continues where it stopped; other --methods are added to what is there.",
        epilog="Any option of Apache Beam is passed on, such as --runner=DataflowRunner.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_run_options(run)
    query = commands.add_parser("query", help="ask a run in SQL", allow_abbrev=False)
    query.add_argument("folder", metavar="DIR", help="folder or address (hf://, s3://) of a run")
    query.add_argument("sql", metavar="SQL", help="a query, or the path of a .sql file")
    query.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    query.add_argument(
        "--external-access",
        action="store_true",
        help="let the query read and write files outside the run",
    )
    opened = commands.add_parser(
        "open", help="write a database for the duckdb command", allow_abbrev=False
    )
    opened.add_argument("folder", metavar="DIR", help="folder of a run")
    verify = commands.add_parser(
        "verify", help="check that a run is whole: nothing lost, nothing torn", allow_abbrev=False
    )
    verify.add_argument("folder", metavar="DIR", help="folder of a run")
    plot = commands.add_parser("plot", help="draw a plot of a run", allow_abbrev=False)
    plot.add_argument("folder", metavar="DIR", help="folder of a run")
    plot.add_argument(
        "name",
        metavar="NAME",
        help="degradation, information_flow, pruning, pattern_flow, pattern_consistency or "
        "pattern_ablation",
    )
    plot.add_argument("-o", "--output", metavar="FILE", help="HTML file (NAME.html in the folder)")
    plot.add_argument("--method", help="the method to show, where a plot shows one")
    plot.add_argument("--subset", help="the subset of the corpus to show, where a plot shows one")
    _add_head_commands(commands)
    report = commands.add_parser(
        "report", help="write a run's report: one HTML file", allow_abbrev=False
    )
    report.add_argument("folder", metavar="DIR", help="folder of a run")
    report.add_argument(
        "-o", "--output", metavar="FILE", help="HTML file (report.html in the folder)"
    )
    report.add_argument(
        "--limit", type=int, default=5000, metavar="N", help="most instances to look at one by one"
    )
    _add_publish(commands)
    commands.add_parser("methods", help="list the methods", allow_abbrev=False)
    return parser, run


def _add_head_commands(commands: Any) -> None:
    """The commands over the heads of a finished run (method ``attattr``)."""
    prune = commands.add_parser(
        "prune",
        help="take a run's least important heads from its model, and see what it still gets right",
        description="Prunes attention heads of the run's model, the least important first, and "
        "predicts an evaluation corpus: the table pruning. Importance comes from the run alone: "
        "evaluation texts that are in the run are left out. (The released scripts of Hao et al. "
        "2021 evaluate on a file whose first rows they rank by.)",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_held_out_options(prune)
    prune.add_argument(
        "--rates",
        default=f"0,{_FRACTIONS},1",
        help="shares of all heads to prune",
    )
    prune.add_argument("--seeds", type=int, default=5, metavar="N", help="random orders")
    triggers = commands.add_parser(
        "triggers",
        help="the tokens of a run whose connections decide most",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    triggers.add_argument("folder", metavar="DIR", help="folder of a run")
    triggers.add_argument("--method", default="attattr", help="the method whose heads are asked")
    _add_trigger_options(triggers)
    triggers.add_argument("--limit", type=int, default=10, metavar="N", help="most triggers")
    attack = commands.add_parser(
        "attack",
        help="put a run's triggers into other texts, and see what the model still gets right",
        description="Puts each of the best triggers of a run into all texts of an evaluation "
        "corpus that are not in the run: the table attacks, and the view attack_success.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_held_out_options(attack)
    _add_trigger_options(attack)
    attack.add_argument("--triggers", type=int, default=3, metavar="N", help="how many to try")


def _add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that predict an evaluation corpus (``pipeline.held_out``)."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="folder of a run")
    add("--corpus", metavar="PATH_OR_ID", help="labelled corpus to evaluate on")
    add("--split", help="split of the corpus")
    add("--limit", type=int, metavar="N", help="take only the first N rows")
    add("--model", metavar="DIR_OR_ID", help="the run's model (where the run says)")
    for role in ("text", "pair", "label", "id", "good", "bad"):
        add(f"--{role}-column", metavar="NAME", help="guessed if not given; none for no column")
    add("--device", default="auto", metavar="auto|cpu|cuda", help="where the model runs")
    add("--allow-pickle", action="store_true", help="load pickled weights: they can run code")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")
    add("--method", default="attattr", help="the method whose heads are asked")


def _add_trigger_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", metavar="CLASS", help="only of instances explained for this class")
    add("--least", type=float, default=0.02, metavar="SCORE", help="least score")
    add("--both", action="store_true", help="both connections, however weak the second")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``run``; their defaults are those of ``pipeline.Options``."""
    add = parser.add_argument
    add("--config", metavar="YAML", help="file of options (without dashes) and of `set`")
    add("--model", metavar="DIR_OR_ID", help="folder of a fine-tuned model, or its hub id")
    add("--corpus", metavar="PATH_OR_ID", help="file, folder, glob, or id of a data set")
    add("--output", metavar="DIR", help="folder of the run")
    add("--split", help="split of the corpus")
    add("--limit", type=int, metavar="N", help="take only the first N rows")
    add("--methods", default="all", metavar="A,B,...", help="see `attribeam methods`")
    add(
        "--layers",
        action="store_true",
        help="scores by layer too, into tables of their own, of the methods that have them",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="METHOD.PARAM=VALUE",
        help="parameter of a method, as in integrated_gradients.steps=20",
    )
    add(
        "--target",
        default="auto",
        metavar="auto|predicted|gold|INT",
        help="class to explain; auto is predicted, or the correct word of a masked LM",
    )
    _add_corpus_options(parser)
    _add_evaluation_options(parser)
    _add_running_options(parser)


def _add_publish(commands: Any) -> None:
    publish = commands.add_parser(
        "publish",
        help="make a data set of the Hugging Face hub out of a run",
        description="Uploads a finished run, with a card that says what it is and how to load it. "
        "It holds the texts of the corpus: find out first whether they may be passed on.",
        allow_abbrev=False,
    )
    add = publish.add_argument
    add("folder", metavar="DIR", help="folder of a run")
    add("repo_id", metavar="USER/NAME", help="the data set; made if there is none")
    add("--dry-run", metavar="FOLDER", help="write what would be uploaded to a new folder instead")
    add("--license", metavar="ID", help="the hub's id of the licence, such as cc-by-4.0")
    add("--language", metavar="A,B,...", default="", help="of the corpus, such as en")
    add("--methods", metavar="A,B,...", help="publish only these")
    add("--title", metavar="TEXT", help="name for people (that of the data set)")
    add("--private", action="store_true", help="let nobody else see it")
    add(
        "--allow-incomplete",
        action="store_true",
        help="publish the whole shards of an unfinished or unsound run",
    )


def _add_corpus_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("corpus")
    for role in ("text", "pair", "label", "id", "rationale", "roles", "subset", "good", "bad"):
        group.add_argument(
            f"--{role}-column", metavar="NAME", help="guessed if not given; none for no column"
        )
    add = group.add_argument
    add("--max-length", type=int, metavar="N", help="most tokens of an instance (the model's)")
    add("--overflow", default="truncate", metavar="truncate|fail", help="for longer texts")
    add("--words", default="whitespace", metavar="whitespace|tokenizer", help="what a word is")
    add("--mask-token-id", type=int, metavar="ID", help="for a model without tokenizer")


def _add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("evaluation")
    add = group.add_argument
    add(
        "--evaluate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="perturb the inputs along the scores, into the table curves",
    )
    add("--fractions", default=_FRACTIONS, help="nominal fractions to remove, beside 0 and 1")
    add("--orders", default="morf,lerf,random", help="orders to remove in")
    add("--operations", metavar="mask,pad,delete", help="how to remove (mask, or pad if unknown)")
    add(
        "--units",
        default="token",
        metavar="token|word|compat",
        help="what is removed at a time (compat: tokens, counted as IBA's authors do)",
    )


def _add_running_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running")
    add = group.add_argument
    add("--device", default="auto", metavar="auto|cpu|cuda", help="where the model runs")
    add("--dtype", default="float32", metavar="float32|float64|bfloat16")
    add("--token-budget", type=int, metavar="N", help="largest batch, in tokens (by device)")
    add("--shard-size", type=int, default=512, metavar="N", help="instances committed at a time")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=1, metavar="N", help="worker processes")
    add("--runner", default="FnApiRunner", metavar="NAME", help="a Beam runner")
    add("--allow-pickle", action="store_true", help="load pickled weights: they can run code")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")
    add("--verbose", action="store_true", help="show the log of Beam and the libraries")


# Commands -------------------------------------------------------------------------------------


def _run(parser: argparse.ArgumentParser, given: Sequence[str], others: list[str]) -> int:
    settings = parser.parse_known_args(given)[0]
    config = _read_config(settings.config, parser)
    parser.set_defaults(**{key: value for key, value in config.items() if key != "set"})
    arguments = parser.parse_known_args(given)[0]
    _quiet(verbose=arguments.verbose)
    for name in ("model", "corpus", "output"):
        if not getattr(arguments, name):
            raise UsageError(f"--{name} is needed (`attribeam run --help`)")
    # Beam's own usage text would hide ours; and these are slow imports.
    from pipeline.job import run

    summary = run(_options(arguments, config.get("set", {}), others))
    _report(summary)
    return FAILED if summary.failures else DONE


def _options(arguments: argparse.Namespace, params: Mapping[str, Any], others: list[str]) -> Any:
    from pipeline.options import Options

    given = vars(arguments)
    same = [name for name in Options.__dataclass_fields__ if name in given]
    return Options(
        **{name: given[name] for name in same},
        params=_params(params, arguments.set),
        columns=_columns(given),
        evaluation=_evaluation(arguments) if arguments.evaluate else None,
        beam=others,
    )


def _columns(given: Mapping[str, Any]) -> dict[str, str]:
    """Column by role, of those that were named."""
    return {
        name.removesuffix("_column"): value
        for name, value in given.items()
        if name.endswith("_column") and value is not None
    }


def _evaluation(arguments: argparse.Namespace) -> Any:
    from transforms.perturb import Evaluation

    try:
        fractions = tuple(float(Fraction(text)) for text in _listed(arguments.fractions))
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"--fractions is a list of numbers such as 0.1 or 1/9, not {arguments.fractions}"
        ) from None
    return Evaluation(
        fractions=tuple(sorted(set(fractions))),
        orders=tuple(_listed(arguments.orders)),  # type: ignore[arg-type]
        operations=tuple(_listed(arguments.operations or "")),  # type: ignore[arg-type]
        protocol=arguments.units,
    )


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def _params(config: Mapping[str, Any], sets: Sequence[str]) -> dict[str, dict[str, Any]]:
    params: dict[str, dict[str, Any]] = {}
    for method, values in config.items():
        if not isinstance(values, Mapping):
            raise UsageError(f"`set` in the configuration: {method} needs parameters and values")
        params[str(method)] = {str(name): value for name, value in values.items()}
    for text in sets:
        path, equals, value = text.partition("=")
        method, dot, name = path.partition(".")
        if not (equals and dot and method and name):
            raise UsageError(f"--set {text}: it is METHOD.PARAM=VALUE")
        params.setdefault(method.strip(), {})[name.strip()] = value.strip()
    return params


def _read_config(path: str | None, parser: argparse.ArgumentParser) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path} can't be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("set", {}), dict):
        raise UsageError(f"--config {path} is not a mapping of options to values")
    config: dict[str, Any] = {"set": content.pop("set", {})}
    actions = {action.dest: action for action in parser._actions}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in actions or name in ("help", "config"):
            raise UsageError(f"--config {path}: there is no option {str(key)!r}")
        if value is not None:
            config[name] = _config_value(path, actions[name], value)
    return config


def _config_value(path: str, action: argparse.Action, value: Any) -> Any:
    """A value as the command line would have it, so that it is checked just the same."""
    flag = action.nargs == 0
    if isinstance(value, list) and action.dest in _LISTS:
        return ",".join(map(str, value))
    if isinstance(value, bool) != flag or not isinstance(value, bool | int | float | str):
        raise UsageError(f"--config {path}: {action.dest} can't be {value!r}")
    return value if flag else str(value)


def _query(arguments: argparse.Namespace) -> int:
    from analysis import run_query

    run_query(
        arguments.folder,
        arguments.sql,
        arguments.format,
        external_access=arguments.external_access,
    )
    return DONE


def _open(arguments: argparse.Namespace) -> int:
    from analysis import write_database

    path = write_database(arguments.folder)
    print(f"cd {shlex.quote(str(path.parent))} && duckdb {path.name}")
    return DONE


def _verify(arguments: argparse.Namespace) -> int:
    from analysis import print_report, verify

    report = verify(arguments.folder)
    print_report(report, sys.stdout)
    return FAILED if report.problems else DONE


def _write_report(arguments: argparse.Namespace) -> int:
    from analysis.report import write_report  # plotly takes a while.

    print(write_report(arguments.folder, arguments.output, limit=arguments.limit))
    return DONE


def _publish(arguments: argparse.Namespace) -> int:
    from analysis.publish import publish  # The hub's library takes a while.

    done = publish(
        arguments.folder,
        arguments.repo_id,
        methods=None if arguments.methods is None else _listed(arguments.methods),
        license=arguments.license,
        languages=_listed(arguments.language),
        title=arguments.title,
        private=arguments.private,
        allow_incomplete=arguments.allow_incomplete,
        dry_run=arguments.dry_run,
        tell=lambda warning: print(f"warning: {warning}", file=sys.stderr),
    )
    print(f"{done.files} files, {done.size / 1e6:.1f} MB, {len(done.configs)} configs")
    print(f"folder: {done.folder}" if done.url is None else f"data set: {done.url}")
    return DONE


def _plot(arguments: argparse.Namespace) -> int:
    from analysis.plots import plot  # plotly takes a while.

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
    from analysis.terminal import print_rows
    from pipeline.held_out import left_out
    from pipeline.prune import by_rate, prune

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} models", end="\n" * (done == total), file=sys.stderr)

    result = prune(options, rates=arguments.rates, seeds=arguments.seeds, progress=show)
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
    from analysis import open_run
    from analysis.terminal import print_rows
    from analysis.triggers import Candidate, class_of, heads_of, trigger_candidates

    manifest = heads_of(arguments.folder, arguments.method)
    if arguments.limit < 1:
        raise UsageError(f"--limit is at least 1, not {arguments.limit}")
    labels = manifest["identity"]["model"]["labels"]
    with open_run(arguments.folder) as connection:
        found = trigger_candidates(
            connection,
            arguments.method,
            target=class_of(arguments.target, labels),
            least=arguments.least,
            both=arguments.both,
            limit=arguments.limit,
        )
    rows = [[*each[:4], labels[each.explained]] for each in found]
    print_rows(Candidate._fields[:5], rows, sys.stdout)
    return DONE


def _attack(arguments: argparse.Namespace) -> int:
    options = _held_out_options(arguments)
    from analysis.terminal import print_rows
    from pipeline.attack import attack, successes
    from pipeline.held_out import left_out

    result = attack(
        options,
        triggers=arguments.triggers,
        target=arguments.target,
        least=arguments.least,
        both=arguments.both,
    )
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
    from pipeline.held_out import HeldOutOptions

    given = vars(arguments)
    return HeldOutOptions(
        **{name: given[name] for name in HeldOutOptions.__dataclass_fields__ if name in given},
        columns=_columns(given),
    )


def _methods(_: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape

    from transforms.registry import LastLayers, methods

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
        if method.opt_in is not None:
            show(f"not among `all`: {method.opt_in}", "yellow")
        for name, default in method.defaults.items():
            values = " | ".join(default) if isinstance(default, tuple) else str(default)
            if isinstance(default, LastLayers):
                values = "auto | LAYER"
            show(f"--set {method.name}.{name}={values}", "dim")
        for name, preset in method.presets.items():
            listed = ", ".join(f"{key}={value}" for key, value in preset.items())
            show(f"--set {method.name}.preset={name}: {listed}", "dim")
    return DONE


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
    if summary.failures:
        failures = _counted(summary.failures, "failure")
        print(f'{failures}: attribeam query {folder} "from failure_summary"')
    print(f"tables: {summary.output}")
    view = "faithfulness" if summary.evaluated else "cost"
    print(f'next:   attribeam query {folder} "from {view}"')


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _quiet(*, verbose: bool) -> None:
    """Keeps the libraries' chatter off the terminal."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    level = logging.INFO if verbose else logging.ERROR
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
