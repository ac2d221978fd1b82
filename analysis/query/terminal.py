"""Rows as a table that fits a terminal."""

import math
import re
from collections.abc import Sequence
from typing import IO, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2  # one of padding, one of the box
_LIST_ENTRIES = 4
_SHORTEST_TEXT = 12
_LONGEST_TEXT = 80
_LONGEST_KEY = 24
_MOST_DECIMALS = 6
_MOST_EXPONENT = 9
# What is looked at first of a view that has more columns than a line has room for.
_HEADLINES = ("auc_difference", "comprehensiveness", "sufficiency", "flipped")
_LONG = 12  # Rows, of more than which one table is enough at a time.
# What a terminal takes for a command: colours, the cursor, its title.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)")


def harmless(text: str) -> str:
    """Returns a text without what a terminal would obey; its lines stay."""
    plain = _SEQUENCE.sub("", text)
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}"
        for c in plain.replace("\r\n", "\n").expandtabs()
    )


def print_rows(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    out: IO[str],
    *,
    width: int | None = None,
) -> None:
    """Prints rows under their names, numbers to the right and with as many decimals as the column.

    Texts are cut to fit. Where a line is still too long, columns that have one value in all rows
    are said once, below. Where it still is, headline columns come first, and what doesn't fit
    follows in further tables, each of which begins again with the first column, and with those of
    texts that tell its rows apart; of many rows with headline columns the others are named below
    instead. A number is never cut.

    Args:
        names: A name per column.
        rows: The rows, with a Python value per column.
        out: Where to.
        width: Characters a line may have; None takes the terminal's.
    """
    console = Console(file=out, width=width, highlight=False, emoji=False, markup=False)
    names = [shown(name) for name in names]
    values = [[row[column] for row in rows] for column in range(len(names))]
    numeric = [is_numeric(column) for column in values]
    columns = [shown_column(column) for column in values]
    kept, same = _order(names, columns, numeric, console.width)
    once = ", ".join(f"{names[column]} {columns[column][0]}" for column in same)
    names, numeric = [names[at] for at in kept], [numeric[at] for at in kept]
    columns = [columns[at] for at in kept]
    cells = list(zip(*columns, strict=True))
    widths = _fitted(names, columns, numeric, console.width)
    repeated = _repeated(columns, numeric)
    blocks = _blocks(widths, console.width, repeated)
    more = ""
    if len(rows) > _LONG and {*names[1:]} & {*_HEADLINES}:
        more = ", ".join(
            names[column] for block in blocks[1:] for column in block if column not in blocks[0]
        )
        blocks = blocks[:1]
    # Two numbers may be wider than the terminal. Then so is the line: half a number is a wrong one.
    console.width = max(console.width, *(_line([widths[i] for i in block]) for block in blocks))
    for number, block in enumerate(blocks):
        if number:
            console.print()
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for column in block:
            table.add_column(
                Text(_wrapped(names[column], widths[column])),
                width=widths[column],
                justify="right" if numeric[column] else "left",
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in cells:
            table.add_row(*(Text(row[column]) for column in block))
        console.print(table)
    if once:
        console.print(f"\nin all rows: {once}")
    if more:
        console.print(f"\nno room for: {more} (select them by name, or take a wider terminal)")


def _order(
    names: Sequence[str], columns: Sequence[Sequence[str]], numeric: Sequence[bool], limit: int
) -> tuple[list[int], list[int]]:
    """The columns to be shown, in order, and those that are said once instead."""
    kept = [*range(len(names))]
    if _line(_fitted(names, columns, numeric, limit)) <= limit:
        return kept, []
    same = _same(columns)
    kept = [column for column in kept if column not in same]
    heads, cells = [names[at] for at in kept], [columns[at] for at in kept]
    if _line(_fitted(heads, cells, [numeric[at] for at in kept], limit)) > limit:

        def place(at: int) -> int:
            return _HEADLINES.index(names[at]) if names[at] in _HEADLINES else len(_HEADLINES)

        kept = kept[:1] + sorted(kept[1:], key=place)
    return kept, same


def _same(columns: Sequence[Sequence[str]]) -> list[int]:
    """Columns, but for the first, that have one short value in all of several rows."""
    return [
        at
        for at, cells in enumerate(columns)
        if at and len(cells) > 1 and len({*cells}) == 1 and len(cells[0]) <= _SHORTEST_TEXT
    ]


def shown_column(values: Sequence[object]) -> list[str]:
    """The values of a column, in a line each: numbers with the same decimals, where they can be.

    The largest has four significant digits, and the least that isn't 0 two: where that takes more
    than six decimals, or there are no fractions but of very large numbers, each has its own four.
    """
    numbers = [v for v in values if isinstance(v, float) and math.isfinite(v) and v]
    decimals = _decimals(numbers) if is_numeric(values) else None
    if decimals is None:
        return [shown(value) for value in values]
    return [
        f"{value:.{decimals}f}"
        if isinstance(value, float) and math.isfinite(value)
        else shown(value)
        for value in values
    ]


def _decimals(numbers: Sequence[float]) -> int | None:
    """Decimals for all numbers of a column; None if there are none that suit all."""
    if not numbers:
        return None
    exponents = [math.floor(math.log10(abs(number))) for number in numbers]
    if max(exponents) >= _MOST_EXPONENT:
        return None
    wanted = max(3 - max(exponents), 1 - min(exponents), 0)
    needed = max(_after_point(number) for number in numbers)
    decimals = min(wanted, needed)
    return decimals if decimals <= _MOST_DECIMALS else None


def _after_point(number: float) -> int:
    """Decimals of the shortest text that is the number; too many where that has an exponent."""
    text = f"{number!r}"
    return _MOST_DECIMALS + 1 if "e" in text else len(text.partition(".")[2].rstrip("0"))


def shown(value: object) -> str:
    """A value in a line of a table: numbers with four significant digits, lists cut short."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return _four_digits(value)
        case list():
            parts = [shown(entry) for entry in value[:_LIST_ENTRIES]]
            if len(value) > _LIST_ENTRIES:
                parts.append(f"... {len(value) - _LIST_ENTRIES} more")
            return f"[{', '.join(parts)}]"
        case _:
            # Control characters of a corpus must not reach the terminal.
            text = " ".join(str(value).split())
            return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _four_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    if not -5 <= exponent < 15:
        return f"{value:.3e}"
    return f"{value:.{max(3 - exponent, 0)}f}"


def is_numeric(values: Sequence[object]) -> bool:
    """Whether the values of a column are numbers, but for nulls."""
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )


def _parts(name: str) -> list[str]:
    """Where a name may be broken: after an underscore."""
    return name.replace("_", "_\n").split("\n")


def _natural_width(heads: Sequence[str], cells: Sequence[str]) -> int:
    return min(max(map(cell_len, (*heads, *cells))), _LONGEST_TEXT)


def _wrapped(name: str, width: int) -> str:
    lines = [""]
    for part in _parts(name):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _fitted(
    names: Sequence[str], columns: Sequence[Sequence[str]], numeric: Sequence[bool], limit: int
) -> list[int]:
    """Chooses a width per column: breaks the names, then narrows the texts, until a line fits.

    The first column says what a row is about, so it is narrowed last. Where nothing fits, texts are
    left readable and the columns will follow in blocks.
    """
    whole = [_natural_width([name], cells) for name, cells in zip(names, columns, strict=True)]
    if _line(whole) <= limit:
        return whole
    broken = [
        _natural_width(_parts(name), cells) for name, cells in zip(names, columns, strict=True)
    ]
    for longest in range(_LONGEST_TEXT, _SHORTEST_TEXT - 1, -1):
        widths = _narrowed(broken, numeric, longest)
        if _line(widths) <= limit:
            return widths
    return _narrowed(broken, numeric, _LONGEST_KEY)


def _narrowed(widths: Sequence[int], numeric: Sequence[bool], longest: int) -> list[int]:
    limits = [max(longest, _LONGEST_KEY), *[longest] * (len(widths) - 1)]
    triples = zip(widths, numeric, limits, strict=True)
    return [wide if number else min(wide, limit) for wide, number, limit in triples]


def _line(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * len(widths)


def _repeated(columns: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[int]:
    """The first column, and those of texts after it that tell rows apart which it doesn't."""
    repeated = [0] if columns else []
    texts = [at for at in range(1, len(columns)) if not numeric[at]]
    known = len({*columns[0]}) if columns else 0
    for at in texts:
        if known == len(columns[0]):
            break
        apart = len({*zip(*(columns[i] for i in (*repeated, at)), strict=True)})
        if apart > known:
            repeated.append(at)
            known = apart
    return repeated


def _blocks(widths: Sequence[int], limit: int, repeated: Sequence[int]) -> list[list[int]]:
    """The columns of each table, as many as fit, with those that are repeated first in all."""
    own = _line([widths[at] for at in repeated])
    widest = max((widths[at] + _GAP for at in range(len(widths)) if at not in repeated), default=0)
    if own + widest > limit:
        repeated = repeated[:1]
    blocks: list[list[int]] = [[]]
    room = limit
    for column, wide in enumerate(widths):
        if column in blocks[-1]:
            continue
        if blocks[-1] and wide + _GAP > room:
            blocks.append([*repeated])
            room = limit - _line([widths[at] for at in repeated])
            if column in repeated:
                continue
        blocks[-1].append(column)
        room -= wide + _GAP
    # A table that only repeats says nothing.
    return [block for at, block in enumerate(blocks) if not at or len(block) > len(repeated)]
