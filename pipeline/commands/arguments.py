"""The options of the command line: a parser per command."""

import argparse
import re
from difflib import get_close_matches
from importlib.metadata import version
from math import isfinite
from textwrap import fill
from typing import Any, NoReturn

from attribeam.pipeline.options import Said, declared
from attribeam.schemas.errors import INT64, cut

_EXAMPLES = {
    "run": (
        "run --model user/model --corpus reviews.csv --output out",
        "run --model folder --corpus reviews.csv --output out --methods lime,occlusion",
    ),
    "plan": ("plan --model folder --corpus reviews.csv --device a100",),
    "import": (
        "import --output out --scores theirs=theirs.jsonl --scores captum=captum.npz",
        "import --output out --scores ig=hf://datasets/user/name#integrated_gradients",
    ),
    "query": (
        'query out "from ranking"',
        "query out \"from tokens where instance_id = 'r1' and method = 'lime'\"",
        'query out "from faithfulness" -o table.tex',
        'query hf://datasets/user/name "from cost"',
    ),
    "show": ("show out", "show out r1 r7 --methods lime,occlusion"),
    "open": ("open out",),
    "verify": ("verify out",),
    "plot": ("plot out degradation", "plot out degradation -o figure.pdf --width 600"),
    "report": (
        "report out --open",
        "report out -o page.html",
        "report out other",
        "report out --reproduce",
    ),
    "methods": ("methods", "methods lime occlusion"),
    "prune": ("prune out --corpus dev.csv",),
    "triggers": ("triggers out --limit 5",),
    "attack": ("attack out --corpus dev.csv --triggers 3",),
    "publish": ("publish out user/name --dry-run folder", "publish out user/name --license mit"),
    "completion": (
        "completion bash > ~/.local/share/bash-completion/completions/attribeam",
        "completion zsh > ~/.zfunc/_attribeam",
    ),
}
# What argparse says of a word that is none of those that may stand there.
_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")
_QUOTED = re.compile(r"'([^']*)'")
_FRACTIONS = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help whose examples stay as they are, and which names defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        usual = action.default
        said = action.help and "(default" not in action.help and "%(default)" not in action.help
        named = action.option_strings and action.nargs != 0
        if said and named and usual not in (None, "", argparse.SUPPRESS, []):
            return f"{action.help} (default: %(default)s)"
        return action.help

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fills paragraphs, but for lines that are indented."""
        parts = text.split("\n\n")
        return "\n\n".join(
            part if part.startswith(" ") else fill(part, width, initial_indent=indent)
            for part in parts
        )


class _Parser(argparse.ArgumentParser):
    """A parser whose messages cite no more of what was given than anybody reads.

    Its help ends with examples (``_EXAMPLES``), by the name of the command.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        name = str(more.get("prog", "")).rpartition(" ")[2]
        examples = "\n".join(f"  attribeam {line}" for line in _EXAMPLES.get(name, ()))
        parts = [more.pop("epilog", None), examples and f"examples:\n\n{examples}"]
        more.setdefault("formatter_class", _Help)
        more["epilog"] = "\n\n".join(filter(None, parts))
        super().__init__(*args, **more)

    def error(self, message: str) -> NoReturn:
        """Ends with one line: what is wrong, what was likely meant, and where to read on."""
        near = ""
        if found := _CHOICE.search(message):
            meant = get_close_matches(found[1], _QUOTED.findall(found[2]), 1)
            near = f"; did you mean {meant[0]}?" if meant else ""
        self.exit(2, f"{self.prog}: error: {cut(message)}{near} (`{self.prog} --help`)\n")


def whole(text: str) -> int:
    """A whole number of 64 bits."""
    value = int(text)
    if value not in INT64:
        raise argparse.ArgumentTypeError(f"{cut(text, 80)} is more than 64 bits hold")
    return value


def real(text: str) -> float:
    """A finite number."""
    value = float(text)
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


# What argparse calls them where they fail.
whole.__name__, real.__name__ = "int", "float"


def parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser of all commands, and those of ``run`` and ``plan``.

    A configuration sets defaults of these.
    """
    parser = _Parser(
        prog="attribeam",
        description="Turns a corpus into attribution tables, and answers questions about them.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"attribeam {version('attribeam')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="attribute a corpus, or continue or add methods to a run",
        description="Attributes a corpus into Parquet tables. Running the same command again "
        "continues where it stopped; other --methods are added to what is there.",
        epilog="Any option of Apache Beam is passed on, such as --runner=DataflowRunner.",
        allow_abbrev=False,
    )
    _add_run_options(run)
    run.add_argument(
        "--scores",
        action="append",
        default=[],
        metavar="NAME=FILE[#METHOD]",
        help="scores that others computed, to be put to the same tests as a method NAME: Parquet, "
        "JSON lines, inseq's JSON, an .npz file, or a run (of its METHOD); repeatable",
    )
    plan = _add_plan(commands)
    _add_import(commands)
    query = commands.add_parser("query", help="ask a run in SQL", allow_abbrev=False)
    query.add_argument(
        "folder", metavar="DIR", help="folder or address (hf://, s3://, gs://) of a run"
    )
    query.add_argument(
        "more",
        metavar="DIR",
        nargs="*",
        help="more runs: the query calls the tables of each NAME.attributions and so on, by the "
        "name of its folder, those of the first too",
    )
    query.add_argument(
        "sql", metavar="SQL", help="a query, the path of a .sql file, or - for standard input"
    )
    query.add_argument(
        "--with",
        dest="others",
        metavar="NAME=DIR",
        action="append",
        default=[],
        help="another run, whose tables the query calls NAME.attributions and so on; repeatable",
    )
    query.add_argument(
        "--format",
        choices=("table", "csv", "json", "jsonl", "markdown", "latex", "parquet"),
        help="table, or what the file's name ends with",
    )
    query.add_argument("-o", "--output", metavar="FILE", help="write there, whole or not at all")
    query.add_argument(
        "--external-access",
        action="store_true",
        help="let the query read and write files outside the runs",
    )
    shown = commands.add_parser(
        "show", help="show instances: sentences in colours", allow_abbrev=False
    )
    shown.add_argument("folder", metavar="DIR", help="folder of a run")
    shown.add_argument("ids", metavar="ID", nargs="*", help="of instances (the first three)")
    shown.add_argument("--methods", metavar="A,B,...", help="the methods to show (all)")
    opened = commands.add_parser(
        "open", help="write a database for the duckdb command", allow_abbrev=False
    )
    opened.add_argument("folder", metavar="DIR", help="folder of a run")
    verify = commands.add_parser(
        "verify", help="check that a run is whole: nothing lost, nothing torn", allow_abbrev=False
    )
    verify.add_argument("folder", metavar="DIR", help="folder of a run")
    verify.add_argument(
        "--processes", type=whole, metavar="N", help="that read files (one a processor)"
    )
    compact = commands.add_parser(
        "compact",
        help="join the files of a run into few large ones",
        description="Joins neighbouring shards to files of about 128 MB. Everything works as "
        "before, and is quicker: queries, verifying, publishing. It may be killed at any moment: "
        "nothing is lost, and the same command goes on.",
        allow_abbrev=False,
    )
    compact.add_argument("folder", metavar="DIR", help="folder of a run, or s3://, gs://")
    plot = commands.add_parser("plot", help="draw a plot of a run", allow_abbrev=False)
    plot.add_argument("folder", metavar="DIR", help="folder of a run")
    plot.add_argument(
        "name",
        metavar="NAME",
        help="degradation, cost_faithfulness, information_flow, pruning, pattern_flow, "
        "pattern_consistency, pattern_ablation or overlays (of pictures)",
    )
    plot.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="HTML, SVG, PNG or PDF by its ending (NAME.html in the folder)",
    )
    plot.add_argument("--theme", choices=("light", "dark"), default="light")
    plot.add_argument("--width", type=whole, metavar="PIXELS", help="width (that of the page)")
    plot.add_argument("--method", help="the method to show, where a plot shows one")
    plot.add_argument("--subset", help="the subset of the corpus to show, where a plot shows one")
    _add_head_commands(commands)
    _add_check(commands)
    report = commands.add_parser(
        "report", help="write a run's report: one HTML file", allow_abbrev=False
    )
    report.add_argument("folder", metavar="DIR", help="folder of a run")
    report.add_argument(
        "more",
        nargs="*",
        metavar="OTHER",
        help="another run to be compared with; several with --reproduce",
    )
    report.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="HTML file (report.html, compared.html or evidence.html in the folder)",
    )
    report.add_argument(
        "--limit",
        type=whole,
        default=5000,
        metavar="N",
        help="most instances to look at one by one",
    )
    report.add_argument(
        "--reproduce",
        action="store_true",
        help="write what can be cited instead (evidence.html): one table with what differs for "
        "sure, mean ranks, and papers' claims judged, each number with its SQL",
    )
    report.add_argument("--open", action="store_true", help="open it in the browser")
    _add_publish(commands)
    completion = commands.add_parser(
        "completion", help="print what makes a shell complete commands", allow_abbrev=False
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), metavar="bash|zsh|tcsh")
    listing = commands.add_parser("methods", help="list the methods", allow_abbrev=False)
    listing.add_argument("names", nargs="*", metavar="NAME", help="say all of these")
    return parser, run, plan


def _add_plan(commands: Any) -> argparse.ArgumentParser:
    """The command that takes the options of ``run``, and says what that would cost."""
    plan: argparse.ArgumentParser = commands.add_parser(
        "plan",
        help="say what a run would take: time, memory, size and money",
        description="Measures a few batches of the corpus and says what the run with the same "
        "options would take, on this machine or on a GPU elsewhere. Writes nothing.",
        epilog="Takes the options of `attribeam run`.",
        allow_abbrev=False,
    )
    group = plan.add_argument_group("planning")
    add = group.add_argument
    add("--sample", type=whole, metavar="N", help="instances to measure (what takes half a minute)")
    add("--price-per-hour", type=real, metavar="X", help="dollars for each device (list price)")
    add("--format", choices=("table", "json"), default="table")
    _add_run_options(plan, devices="auto|cpu|cuda|t4|l4|a100|a100-80gb|h100")
    return plan


def _add_import(commands: Any) -> None:
    """The command that makes a run of scores alone."""
    command = commands.add_parser(
        "import",
        help="make a run of scores that others computed, without their model",
        description="Writes attributions that others computed as a run's folder, which query, "
        "report, publish and verify take. No model is asked, so that there are no curves: "
        "`attribeam run --scores` puts the same files to the test, with the model.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--output", metavar="DIR", required=True, help="a new folder")
    add(
        "--scores",
        action="append",
        default=[],
        required=True,
        metavar="NAME=FILE[#METHOD]",
        help="a file of scores, as of `attribeam run`: Parquet, JSON lines, inseq's JSON, an .npz "
        "file, or a run or published data set (of its METHOD); repeatable",
    )
    add(
        "--corpus",
        metavar="FILE",
        help="records of the instances, where scores have none: id, text, tokens, label; Parquet "
        "or JSON lines",
    )
    add("--labels", metavar="A,B,...", help="names of the classes (those that files name)")
    add("--model", metavar="NAME", help="what the model is called, for people")
    add(
        "--pad-id",
        type=whole,
        metavar="N",
        help="vocabulary id that is padding where rows of input_ids end in it",
    )


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
    )
    _add_held_out_options(prune)
    prune.add_argument(
        "--rates",
        default=f"0,{_FRACTIONS},1",
        help="shares of all heads to prune",
    )
    prune.add_argument("--seeds", type=whole, default=5, metavar="N", help="random orders")
    triggers = commands.add_parser(
        "triggers",
        help="the tokens of a run whose connections decide most",
        allow_abbrev=False,
    )
    triggers.add_argument("folder", metavar="DIR", help="folder of a run")
    triggers.add_argument("--method", default="attattr", help="the method whose heads are asked")
    _add_trigger_options(triggers)
    triggers.add_argument("--limit", type=whole, default=10, metavar="N", help="most triggers")
    attack = commands.add_parser(
        "attack",
        help="put a run's triggers into other texts, and see what the model still gets right",
        description="Puts each of the best triggers of a run into all texts of an evaluation "
        "corpus that are not in the run: the table attacks, and the view attack_success.",
        allow_abbrev=False,
    )
    _add_held_out_options(attack)
    _add_trigger_options(attack)
    attack.add_argument("--triggers", type=whole, default=3, metavar="N", help="how many to try")


def _add_check(commands: Any) -> None:
    """The command that asks a run's model again."""
    check = commands.add_parser(
        "check",
        help="see whether a run's explanations can be believed",
        description="Explains instances of a finished run again: with weights randomised part by "
        "part (randomised), with noise on the input (noised), under other seeds (repeats); and "
        "predicts them without subsets of their tokens (subsets). Each is a table beside the run, "
        "and has views. The same command goes on where it stopped, and adds methods, draws and "
        "seeds to what is there.",
        allow_abbrev=False,
    )
    add = check.add_argument
    add("folder", metavar="DIR", help="folder of a run")
    add("--model", metavar="DIR_OR_ID", help="the run's model (where the run says)")
    add("--checks", default="randomise,noise,subsets,repeats", help="which of them")
    add("--methods", metavar="A,B,...", help="methods of the run (all that have scores)")
    add("--limit", type=whole, default=200, metavar="N", help="most instances, by a hash of ids")
    add("--plan", action="store_true", help="say what it would take, and write nothing")
    weights = check.add_argument_group("randomise")
    add = weights.add_argument
    add(
        "--stages",
        metavar="A,B,...",
        help="parts down to which weights are randomised: head, layer.3, embeddings (all)",
    )
    add(
        "--weights",
        default="init",
        metavar="init|shuffle",
        help="what they hold: drawn as transformers initialises, or permuted; or both",
    )
    add("--seeds", type=whole, default=1, metavar="N", help="seeds of these weights")
    add(
        "--smooth",
        type=whole,
        default=0,
        metavar="N",
        help="average scores over N noised inputs too, at each stage",
    )
    others = check.add_argument_group("noise, subsets, repeats")
    add = others.add_argument
    add("--draws", type=whole, default=10, metavar="N", help="noised inputs")
    add(
        "--radius",
        type=real,
        default=0.05,
        metavar="R",
        help="of the noise, in root mean squares of the input",
    )
    add("--samples", type=whole, default=100, metavar="N", help="random subsets")
    add("--repeats", type=whole, default=4, metavar="N", help="other seeds, of stochastic methods")
    running = check.add_argument_group("running")
    add = running.add_argument
    add("--device", default="auto", metavar="auto|cpu|cuda", help="where the model runs")
    add("--token-budget", type=whole, metavar="N", help="largest batch, in tokens (by device)")
    add("--allow-pickle", action="store_true", help="load pickled weights: they can run code")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")


def _add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that predict an evaluation corpus."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="folder of a run")
    add("--corpus", metavar="PATH_OR_ID", help="labelled corpus to evaluate on")
    add("--split", help="split of the corpus")
    add("--limit", type=whole, metavar="N", help="take only the first N rows")
    add("--model", metavar="DIR_OR_ID", help="the run's model (where the run says)")
    for role in ("text", "pair", "label", "id", "split", "good", "bad"):
        add(f"--{role}-column", metavar="NAME", help="guessed if not given; none for no column")
    add("--delimiter", metavar="CHARACTER", help="between the fields of CSV and TSV")
    add("--device", default="auto", metavar="auto|cpu|cuda", help="where the model runs")
    add("--allow-pickle", action="store_true", help="load pickled weights: they can run code")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")
    add("--method", default="attattr", help="the method whose heads are asked")


def _add_trigger_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", metavar="CLASS", help="only of instances explained for this class")
    add("--least", type=real, default=0.02, metavar="SCORE", help="least score")
    add("--both", action="store_true", help="both connections, however weak the second")


def _add_run_options(parser: argparse.ArgumentParser, devices: str | None = None) -> None:
    """Options of ``run``: those of ``Options``, and what these hold in other forms.

    Args:
        parser: Of the command.
        devices: What its ``--device`` may be, if that is more than a run's.
    """
    parser.add_argument(
        "--config", metavar="YAML", help="file of options (without dashes) and of `set`"
    )
    _add_declared(parser, None)
    corpus = parser.add_argument_group("corpus")
    _add_columns(corpus)
    _add_declared(corpus, "corpus")
    evaluation = parser.add_argument_group("evaluation")
    _add_evaluation_options(evaluation)
    _add_declared(evaluation, "evaluation")
    running = parser.add_argument_group("running")
    _add_declared(running, "running", devices)
    running.add_argument(
        "--verbose", action="store_true", help="show the log of Beam and the libraries"
    )


def _add_declared(group: Any, name: str | None, devices: str | None = None) -> None:
    """Adds the options that are declared to be in a part of the help."""
    for option, (said, default) in declared().items():
        if said.group == name:
            metavar = devices if option == "device" and devices else said.metavar
            _add(group, option, said, default, metavar)
        if name is None and option == "layers":
            group.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="METHOD.PARAM=VALUE",
                help="parameter of a method, as in integrated_gradients.steps=20",
            )


def _add(group: Any, name: str, said: Said, default: Any, metavar: str | None) -> None:
    """Adds an option as it is declared."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        group.add_argument(flag, action="store_true", help=said.about)
        return
    kind = {"type": whole} if said.whole else {}
    group.add_argument(flag, default=default, metavar=metavar, help=said.about, **kind)


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
    add("--report", action="store_true", help="put the run's report beside the card")
    add(
        "--collection",
        metavar="SLUG_OR_TITLE",
        help="add it to a collection of the hub; by a title, one is made if there is none",
    )
    add("--license", metavar="ID", help="the hub's id of the licence, such as cc-by-4.0")
    add("--corpus-license", metavar="TEXT", help="the licence of the corpus's texts or pictures")
    add("--model-license", metavar="TEXT", help="that of the model, whose output is published")
    add("--creator", metavar="NAME", action="append", default=[], help="who made it; repeatable")
    add("--language", metavar="A,B,...", default="", help="of the corpus, such as en")
    add("--methods", metavar="A,B,...", help="publish only these")
    add("--title", metavar="TEXT", help="name for people (that of the data set)")
    add("--private", action="store_true", help="let nobody else see it")
    add(
        "--allow-incomplete",
        action="store_true",
        help="publish the whole shards of an unfinished or unsound run",
    )


def _add_columns(group: Any) -> None:
    of_texts = ("text", "pair", "label", "id", "split", "rationale", "rationale-pair")
    of_words = ("roles", "subset", "good", "bad", "continuation", "foil", "messages", "segments")
    of_images = ("image", "mask", "mask-label", "other-mask", "other-label")
    for role in (*of_texts, *of_words, *of_images):
        group.add_argument(
            f"--{role}-column", metavar="NAME", help="guessed if not given; none for no column"
        )


def _add_evaluation_options(group: Any) -> None:
    add = group.add_argument
    add(
        "--evaluate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="perturb the inputs along the scores, into the table curves",
    )
    add(
        "--fractions",
        default=_FRACTIONS,
        metavar="F,F,...|eraser|each",
        help="nominal fractions to remove, beside 0 and 1; eraser for 0.01,0.05,0.1,0.2,0.5; each "
        "for unit by unit, which takes as many passes as there are units",
    )
    add("--orders", default="morf,lerf,random", help="orders to remove in")
    add(
        "--operations",
        metavar="mask,pad,delete,impute",
        help="how to remove (mask, or pad if unknown; impute has the masked LM of --imputer fill "
        "what is removed; of pictures mean, black, drop)",
    )
    add(
        "--fills",
        type=whole,
        metavar="N",
        help="fills of each input that are drawn under impute, 2 or more (5)",
    )
    add(
        "--units",
        default="token",
        metavar="token|word|segment|compat|patch|pixel",
        help="what is removed at a time (segment: parts of a prompt; compat: tokens, counted as "
        "IBA's authors do; of pictures patch, or pixel as Beyond Intuition's do)",
    )
