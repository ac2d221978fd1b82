"""Coloured sentences, in a terminal and as HTML."""

import io
import re
from pathlib import Path

import duckdb
import pytest

from attribeam.analysis import open_run
from attribeam.analysis.instances.html import instances_html
from attribeam.analysis.instances.loading import Piece, Scored, Shown, load_shown
from attribeam.analysis.instances.terminal import print_instances
from tests.support.synthetic_run import synthetic_run, write_run

ROW = {
    **{"instance_id": "r<1>", "contrast": None, "label": 0, "prediction": 1, "probability": 0.9},
    **{"outputs": None, "subset": None, "truncated": False, "classes": ["no", "yes"]},
    **{"image": None},
}
PIECES = [Piece("[CLS]", True, False, False), Piece("un", False, False, True)]
PIECES += [Piece("kind", False, True, True), Piece("words", False, False, False)]
SIGNED = Scored("paths", True, 1, [9.0, -2.0, 1.0, 0.0], [1.0, -1.0, 0.5, 0.0])
PLAIN = Scored("norms", False, None, [9.0, 4.0, 1.0, 0.0], [1.0, 1.0, 0.25, 0.0])
LACKING = Scored("none", True, None, None, [0.0] * 4)
SHOWN = Shown(ROW, PIECES, [SIGNED, PLAIN, LACKING])


def printed(colours: bool, width: int = 80) -> str:
    out = io.StringIO()
    with duckdb.connect() as connection:
        print_instances(connection, [SHOWN], out, width=width, colours=colours)
    return out.getvalue()


def test_without_colours_words_have_numbers() -> None:
    text = printed(False)
    assert "r<1>  predicted yes (90.0%) · label no" in text
    assert "paths  [CLS] un{-1.00}kind{+0.50} words" in text
    assert "norms  [CLS] un{1.00}kind{0.25} words" in text
    assert " none  no scores" in text
    assert "\x1b" not in text


def test_colours_say_the_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = printed(True)
    assert re.search(r"48;2;240;150;40m?un", text)  # Against: orange.
    assert re.search(r"48;2;(160;208;240|159;207;239)", text)  # For, half as strong: paler blue.
    assert "{" not in text
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", "xterm")
    assert re.search(r"\x1b\[1;4;33mun", printed(True))  # Eight colours: bold.


def test_html_colours_what_the_words_are() -> None:
    with duckdb.connect() as connection:
        html = instances_html(connection, [SHOWN])
    assert "r&lt;1&gt;" in html
    assert "background:rgba(190,95,0,0.60)" in html
    assert "background:rgba(0,125,205,0.30)" in html
    assert "background:rgba(0,138,105,0.15)" in html
    assert html.count("text-decoration:underline") == 4
    assert "no scores" in html and 'title="un: -2"' in html


def test_special_tokens_take_no_strength_from_words(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(), tmp_path)
    with open_run(folder) as connection:
        rows = connection.execute("select instance_id from instances").fetchall()
        for each in load_shown(connection, [name for (name,) in rows]):
            special = [piece.special for piece in each.pieces]
            for method in each.methods:
                words = [abs(s) for s, no in zip(method.strengths, special, strict=True) if not no]
                if method.scores is not None and any(words):
                    assert max(words) == pytest.approx(1)
