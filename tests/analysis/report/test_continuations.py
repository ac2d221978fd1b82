"""The report's continuations: what is packed, and what a browser makes of it."""

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attribeam.analysis import open_run
from attribeam.analysis.instances import continued
from attribeam.analysis.instances.html import instances_html
from attribeam.analysis.instances.loading import load_shown
from attribeam.analysis.report.continuations import shared_by
from attribeam.analysis.report.report import write_report
from tests.support.models import GOLDENS
from tests.support.patience import HANG
from tests.support.tiny import command, table, write_jsonl

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    evil = "w9 w8. <b>w7</b> w6"
    lines = [
        {"id": "first", "prompt": evil, "completion": "w20 w21 w22", "foil": "w30 w31 w32"},
        {"id": "second", "prompt": "w10 w11", "completion": "w12"},
    ]
    run = command(
        *("run", "--model", GOLDENS / "llama-golden", "--output", folder / "out"),
        *("--corpus", write_jsonl(folder / "corpus.jsonl", lines), "--no-evaluate"),
        *("--methods", "grad_x_input,saliency,decompx"),
    )
    assert run.status == 0, run.err
    return folder / "out"


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(folder, tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.parametrize(
    ("params", "additive", "shared"),
    [
        ({"unit": "segment"}, False, "segment"),
        ({"sources": "segments"}, False, "segment"),
        ({"sources": "tokens"}, False, "token"),
        ({"unit": "word"}, False, "word"),
        ({"unit": "bag"}, False, "word"),
        ({"unit": "word"}, True, "token"),
        ({"unit": "token"}, False, "token"),
        ({}, False, "token"),
    ],
)
def test_what_has_one_score(params: dict[str, str], additive: bool, shared: str) -> None:
    assert shared_by({"params": params, "additive": additive}) == shared


def unpacked(text: str, kind: type) -> Any:
    return np.frombuffer(base64.b64decode(text), kind)


def test_scores_are_packed_by_row(folder: Path, report: Path) -> None:
    html = report.read_text("utf-8")
    (packed,) = re.findall(r'(?s)<script [^>]*id="continuations-data">(.*?)</script>', html)
    data = json.loads(packed)
    assert [row["id"] for row in data["rows"]] == ["first", "second"]
    instances = {one["instance_id"]: one for one in table(folder, "instances").to_pylist()}
    for at, row in enumerate(data["rows"]):
        every = instances[f"{row['id']}#all"]
        words = every["word_ids"]
        starts = [
            n for n in range(len(words)) if not n or words[n] is None or words[n] != words[n - 1]
        ]
        assert row["words"] == starts
        assert row["tokens"] == every["tokens"] and row["prompt"] == every["prompt_length"]
        names = [instances[f"{row['id']}#{n}"]["token"] for n in range(len(row["questions"]) - 1)]
        assert [question["token"] for question in row["questions"]] == [*names, None]
        for method in data["methods"]:
            scores = {
                one["instance_id"]: one["scores"]
                for one in table(folder, "attributions", method["name"]).to_pylist()
            }
            values = unpacked(method["scores"][at], np.int8)
            scales = unpacked(method["scales"][at], np.float32).reshape(-1, 2)
            start = 0
            for question, (plain, special) in zip(row["questions"], scales, strict=True):
                number = question["number"]
                name = f"{row['id']}#{'all' if number is None else number}"
                own = values[start : start + question["length"]]
                start += question["length"]
                if name not in scores:  # decompx of all that follows
                    assert method["name"] == "decompx" and number is None and (own == -128).all()
                    continue
                scale = np.where(instances[name]["special"], special, plain)
                assert np.abs(own / 127 * scale - scores[name]).max() <= scale.max() / 250
            assert start == len(values)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
def test_tokens_are_clicked(report: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    said: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=1000 * HANG
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.set_default_timeout(1000 * HANG)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.select_option("#continuation-method", label="grad_x_input")
        tokens = page.locator("#continuation-text .said button")
        assert tokens.all_inner_texts() == ["w20", "w21", "w22", "all of it"]
        tokens.nth(2).click()
        assert page.get_attribute("#continuation", "data-drawn") == "0/2/grad_x_input"
        pressed = page.locator("#continuation-text .said button[aria-pressed='true']")
        assert pressed.all_inner_texts() == ["w22"]
        assert "foil “w32”" in page.inner_text("#continuation-facts")
        # The tokens before it have colours, and it has none.
        coloured = page.locator("#continuation-text .t:is(.pos, .neg)").count()
        prompt = page.locator("#continuation-text .prompt .t").count()
        assert coloured == prompt + 2
        assert page.locator(".heat tbody tr").count() == 4
        assert page.locator(".heat tr.asked td:is(.pos, .neg)").count() == coloured
        assert page.locator("#continuation-segments li").count() == 2
        sums = [
            float(text) for text in page.locator("#continuation-segments .sum").all_inner_texts()
        ]
        assert sums == sorted(sums, reverse=True)
        page.locator(".heat tbody button", has_text="w20").click()
        assert page.get_attribute("#continuation", "data-drawn") == "0/0/grad_x_input"
        page.click("#continuation-after")
        assert page.get_attribute("#continuation", "data-drawn") == "1/0/grad_x_input"
        # On a phone nothing but the map's own frame scrolls sideways.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert said == []


def in_notebook(folder: Path, ids: list[str]) -> str:
    with open_run(folder, commented=False) as connection:
        return instances_html(connection, load_shown(connection, ids))


ASKED = ["first#0", "first#1", "first#2", "first#all"]


def test_a_notebook_has_a_map_for_each_method(folder: Path) -> None:
    html = in_notebook(folder, [*ASKED, "second#0"])
    maps = re.findall(r'<table [^>]*aria-label="([^"]+)"', html)
    assert sorted(maps) == ["decompx", "grad_x_input", "saliency"]
    assert "<b>second#0</b>" in html  # One question about a row is a sentence.
    assert "<b>first</b>" in html
    assert "&lt;b&gt;" in html and "<b>w7" not in html
    assert html.count("no scores") == 1  # decompx of all that follows


def test_maps_have_the_scores(folder: Path) -> None:
    html = in_notebook(folder, ASKED)
    rows = table(folder, "attributions", "saliency").to_pylist()
    scores = {row["instance_id"]: row["scores"] for row in rows}
    (drawn,) = re.findall(r'(?s)<table [^>]*aria-label="saliency">.*?</table>', html)
    lines = re.findall(r"<tr style.*?</tr>", drawn)
    assert len(lines) == len(ASKED)
    for name, row in zip(ASKED, lines, strict=True):
        shown = [float(each) for each in re.findall(r': (\S+)"></td>', row)]
        assert shown == pytest.approx(scores[name], rel=1e-3)


def test_methods_without_room_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continued, "_MOST_CELLS", 1)
    html = in_notebook(folder, ASKED)
    assert html.count("<table") == 1
    assert "2 more methods (" in html


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
def test_maps_in_a_browser(folder: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    said: list[str] = []
    file = tmp_path / "notebook.html"
    head = '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
    file.write_text(head + in_notebook(folder, ASKED), "utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=1000 * HANG
        )
        for scheme, width in (("light", 1000), ("dark", 390)):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.set_default_timeout(1000 * HANG)
            page.on("console", lambda message: said.append(message.text))
            page.on("request", lambda request: said.append(request.url))
            page.goto(file.as_uri())
            heat = page.locator('table[aria-label="grad_x_input"]')
            assert heat.locator("tbody tr").count() == len(ASKED)
            assert heat.locator("th[scope=row]").all_inner_texts()[-1] == "all"
            # The strongest cell is seen against the page, and cells have a size.
            opaque = heat.locator("td").evaluate_all(
                "cells => Math.max(...cells.map(c => Number(getComputedStyle(c)"
                ".backgroundColor.split(',')[3]?.replace(')', '') ?? 0)))"
            )
            assert opaque > 0.5
            box = heat.locator("tbody td").first.bounding_box()
            assert box["width"] >= 10 and box["height"] >= 10
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.close()
        browser.close()
    assert said == [file.as_uri()] * 2
