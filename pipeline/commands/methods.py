"""``attribeam methods``."""

import argparse
import re
from textwrap import wrap
from typing import TYPE_CHECKING

from attribeam.pipeline.commands.status import DONE
from attribeam.schemas.catalogue import Entry, catalogue, check_names

if TYPE_CHECKING:
    from rich.console import Console

# What follows the year of a paper, or a word on where a method comes from.
_YEAR = re.compile(r"(?<=\d{4})\b.*|[,;(].*")


def methods_command(arguments: argparse.Namespace) -> int:
    """Lists the methods, a line each; or says all that there is to know of some."""
    from rich.console import Console

    check_names(arguments.names, catalogue())
    console = Console(highlight=False, soft_wrap=False)
    if not arguments.names:
        _list(console)
    for name in arguments.names:
        _describe(console, name, catalogue()[name])
    return DONE


def _list(console: "Console") -> None:
    from rich.markup import escape

    known = catalogue()
    papers = {name: _YEAR.split(entry["paper"])[0] for name, entry in known.items()}
    names, widest = max(map(len, known)) + 1, max(map(len, papers.values()))
    for name, entry in known.items():
        star = "" if entry["opt_in"] is None else "*"
        line = f"{name + star:{names}} {papers[name]:{widest}}  {entry['cost']}"
        console.print(escape(line), no_wrap=True, overflow="ellipsis")
    console.print()
    console.print("[bold]*[/bold] runs only if it is named, and not with --methods all")
    console.print("`attribeam methods NAME` says more: what it is, what it needs, how it is set")


def _describe(console: "Console", name: str, entry: Entry) -> None:
    from rich.markup import escape

    def show(text: str, style: str | None = None) -> None:
        for line in wrap(text, console.width - 4, break_on_hyphens=False):
            console.print(f"    {escape(line)}", style=style)

    console.print(f"[bold]{name}[/bold]  cost {escape(entry['cost'])}; {', '.join(entry['facts'])}")
    show(f"{entry['equation']}  ({entry['paper']})")
    show("needs " + (", ".join(entry["needs"]) or "no pass"))
    for sentence in entry["requires"]:
        show(sentence)
    if entry["opt_in"] is not None:
        show(f"not among `all`: {entry['opt_in']}", "yellow")
    for param, values in entry["defaults"].items():
        show(f"--set {name}.{param}={values}", "dim")
    for preset, params in entry["presets"].items():
        show(f"--set {name}.preset={preset}: {params}", "dim")
