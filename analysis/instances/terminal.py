"""Instances in a terminal: coloured sentences, and pictures of half blocks.

Where a terminal has no colours, or there is none, the strongest words are followed by their share
of the strongest.
"""

import io
from collections.abc import Sequence
from typing import IO, Any

import duckdb
from PIL import Image
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attribeam.analysis.instances.loading import Piece, Scored, Shown
from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.pictures.overlays import OVERLAID, drawn
from attribeam.analysis.query.terminal import shown as plain

_POSITIVE, _NEGATIVE, _UNSIGNED = (64, 160, 224), (240, 150, 40), (60, 180, 120)
_LEAST = 0.05  # What is less strong has no colour.
_SAID = 0.25  # What is less strong has no number.
_COLUMNS = 28  # Of a picture.


def print_instances(
    connection: duckdb.DuckDBPyConnection,
    shown: Sequence[Shown],
    out: IO[str],
    *,
    width: int | None = None,
    colours: bool | None = None,
) -> None:
    """Prints instances, a line (or a map) for each method.

    Args:
        connection: The run that they are of.
        shown: The instances.
        out: Where to.
        width: Characters of a line; None takes the terminal's.
        colours: Whether to colour; None where the terminal can.
    """
    console = Console(
        file=out, width=width, force_terminal=colours, highlight=False, emoji=False, markup=False
    )
    coloured = console.color_system is not None and colours is not False
    for number, each in enumerate(shown):
        if number:
            console.print()
        head = Text(plain(each.instance_id), "bold").append(
            f"  {' · '.join(map(plain, each.says))}", "not bold"
        )
        console.print(head)
        if each.row["image"] is not None and coloured:
            console.print(_maps(connection, each, console.width))
        else:
            console.print(_lines(each, coloured, console.color_system == "standard"))
    if shown:
        console.print(Text(_legend(shown, coloured), "dim"))


def _legend(shown: Sequence[Shown], coloured: bool) -> str:
    """What colours mean, or numbers in their place, of those that there are."""
    signs = {method.signed for each in shown for method in each.methods}
    if coloured:
        says = ["blue for the class, orange against it"] * (True in signs)
        pictures = any(each.row["image"] is not None for each in shown)
        what = "red how much a patch" if pictures else "green how much a word"
        says += [f"{what} matters, of methods without a sign"] * (False in signs)
    else:
        says = [f"in braces a word's score over the largest of its text, from {_SAID:.0%} on"]
        says += ["+ for the class, - against it"] * (True in signs)
    says += ["underlined the rationale"] * (
        coloured and any(piece.rationale for each in shown for piece in each.pieces)
    )
    return "\n" + "; ".join(says)


def _lines(each: Shown, coloured: bool, few: bool) -> RenderableType:
    """A line a method: its name and the sentence."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column()
    for method in each.methods:
        sentence = (
            Text("no scores", "italic")
            if method.scores is None
            else _sentence(each.pieces, method, coloured, few)
        )
        table.add_row(method.method, sentence)
    if not each.methods:
        table.add_row("", " ".join(piece.text for piece in each.pieces))
    return table


def _sentence(pieces: Sequence[Piece], method: Scored, coloured: bool, few: bool) -> Text:
    line = Text()
    for at, (piece, strength) in enumerate(zip(pieces, method.strengths, strict=True)):
        if at and not piece.glued:
            line.append(" ")
        style = "underline" if piece.rationale else ""
        if piece.special:
            style += " dim"
        elif coloured and abs(strength) >= _LEAST:
            style += f" {_colour(method, strength, few)}"
        line.append(plain(piece.text), style.strip())
        if not coloured and not piece.special and abs(strength) >= _SAID:
            line.append(f"{{{strength:{'+' if method.signed else ''}.2f}}}")
    return line


def _colour(method: Scored, strength: float, few: bool) -> str:
    """The colour of a word: the paler, the weaker; of a terminal with few colours bold or not."""
    hue, name = _UNSIGNED, "green"
    if method.signed:
        hue, name = (_POSITIVE, "blue") if strength > 0 else (_NEGATIVE, "yellow")
    if few:
        return "" if abs(strength) < _SAID else f"bold {name}" if abs(strength) > 0.5 else name
    mixed = (round(255 - abs(strength) * (255 - part)) for part in hue)
    return f"black on rgb({','.join(map(str, mixed))})"


def _maps(connection: duckdb.DuckDBPyConnection, each: Shown, width: int) -> RenderableType:
    """The picture and each method's map over it, as many beside each other as there is room for."""
    rows = dict_rows(
        connection, f"from ({OVERLAID}) where instance_id = $id", {"id": each.instance_id}
    )
    files = {row["method"]: drawn(row) for row in rows}
    cells = [_titled("picture", _blocks(each.row["image"]["bytes"]))]
    for method in each.methods:
        file = files.get(method.method)
        cells.append(_titled(method.method, Text("no scores") if file is None else _blocks(file)))
    beside = max(1, (width + 2) // (_COLUMNS + 2))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for start in range(0, len(cells), beside):
        grid.add_row(*cells[start : start + beside])
    return Padding(grid, (0, 0, 0, 0))


def _titled(name: str, picture: Text) -> RenderableType:
    short = name if cell_len(name) <= _COLUMNS else f"{name[: _COLUMNS - 1]}…"
    return Group(picture, Text(short, "dim"))


def _blocks(file: bytes) -> Text:
    """A picture of half blocks: two pixels a character, one above the other."""
    with Image.open(io.BytesIO(file)) as opened:
        picture = opened.convert("RGB")
    height = max(2, 2 * round(_COLUMNS * picture.height / picture.width / 2))
    small = picture.resize((_COLUMNS, height), Image.Resampling.BOX)
    text = Text()
    for line in range(0, height, 2):
        for column in range(_COLUMNS):
            upper, lower = (small.getpixel((column, line + half)) for half in (0, 1))
            text.append("▀", f"{_rgb(upper)} on {_rgb(lower)}")
        if line + 2 < height:
            text.append("\n")
    return text


def _rgb(pixel: Any) -> str:
    return f"rgb({','.join(map(str, pixel))})"
