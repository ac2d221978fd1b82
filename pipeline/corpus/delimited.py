"""Reading CSV and TSV strictly: a quote that is never closed ends the reading, not the rows."""

import csv
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, Any

from attribeam.pipeline.corpus.fields import Field, Fields, ReadRow, check_names
from attribeam.pipeline.corpus.streams import is_text, text, undecoded
from attribeam.schemas import UsageError

_TEXT = Field(frozenset({"text"}))
_OTHERS = {";": "';'", "\t": "'\\t'", "|": "'|'", ",": "','"}
_LATIN = "if the file is Latin-1, `iconv -f LATIN1 -t UTF-8` makes it one that can be read"


@dataclass(frozen=True)
class Delimited:
    """How files of separated fields are read.

    Attributes:
        delimiter: What separates the fields.
        quotes: Whether a field may stand in quotes.
        given: Whether the user named the delimiter.
    """

    delimiter: str
    quotes: bool
    given: bool

    def fields(self, path: str) -> Fields:
        """Columns by the names in the header line.

        Raises:
            UsageError: If two columns have the same name, or the line seems to be of other fields.
        """
        with text(path) as handle:
            names = self._header(path, self._reader(handle))
        check_names(path, names)
        self._check_delimiter(path, names)
        return dict.fromkeys(names, _TEXT)

    def rows(self, path: str, columns: Collection[str]) -> Iterator[ReadRow]:
        """Rows after the header line, but for empty lines."""
        with text(path) as handle:
            reader = self._reader(handle)
            header = self._header(path, reader)
            wanted = {name: at for at, name in enumerate(header) if name and name in columns}
            number = 0
            while (fields := self._next(path, reader, number + 1)) is not None:
                if fields:
                    number += 1
                    yield _row(header, wanted, fields, number)

    def _reader(self, handle: IO[str]) -> Any:
        csv.field_size_limit(sys.maxsize)
        return csv.reader(
            handle,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
            strict=True,
        )

    def _header(self, path: str, reader: Any) -> list[str]:
        names = self._next(path, reader, 0) or []
        return [
            name.encode(errors="surrogateescape").decode(errors="replace").strip() for name in names
        ]

    def _next(self, path: str, reader: Any, row: int) -> list[str] | None:
        """The fields of the next line or lines; None at the end."""
        line = reader.line_num + 1
        try:
            found: list[str] | None = next(reader, None)
        except csv.Error as error:
            where = f"row {row}" if row else "the header"
            raise UsageError(f"{path}: {_said(str(error), where, line)}") from error
        return found

    def _check_delimiter(self, path: str, names: list[str]) -> None:
        if names and re.fullmatch("sep=.?", names[0]):
            raise UsageError(
                f"{path} begins with {names[0]!r}, which no reader but Excel knows: take the line "
                "out, and give the character with --delimiter"
            )
        found = [mark for mark in _OTHERS if len(names) == 1 and mark in names[0]]
        if found and not self.given:
            raise UsageError(
                f"{path} has one column named {names[0]!r}: its fields seem to be separated by "
                f"{_OTHERS[found[0]]} (--delimiter {_OTHERS[found[0]]})"
            )


def _said(error: str, where: str, line: int) -> str:
    """What the csv module finds wrong, as a sentence."""
    if error.startswith("unexpected end"):
        return f"a quote that opens in {where} (line {line}) is never closed"
    if "expected after" in error:
        return (
            f"{where} (line {line}) has a field that goes on after its closing quote; a quote "
            "within a field is written twice"
        )
    if error.startswith("new-line"):
        return f"{where} (line {line}) has a carriage return outside of quotes"
    return f"{where} (line {line}) can't be read: {error}"


def _row(header: list[str], wanted: dict[str, int], fields: list[str], number: int) -> ReadRow:
    values: dict[str, Any] = {name: fields[at] for name, at in wanted.items() if at < len(fields)}
    broken = [name for name, value in values.items() if not is_text(value)]
    problem = f"{broken[0]} {undecoded(values[broken[0]])}; {_LATIN}" if broken else None
    values |= dict.fromkeys(broken)
    if len(fields) != len(header):
        problem = f"row {number} has {len(fields)} fields, the header has {len(header)}"
    return values, problem
