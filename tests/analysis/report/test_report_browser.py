"""The report in a real browser: headless Chromium opens it, searches, filters and sorts."""

import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from attribeam.analysis.evidence.page import write_evidence
from attribeam.analysis.plots.cost import cost_scatter
from attribeam.analysis.plots.plots import page as plotted
from attribeam.analysis.report.report import write_report
from tests.analysis.report.test_report import EVIL
from tests.support.crowd import CROWD, crowd
from tests.support.patience import HANG
from tests.support.synthetic_run import METHODS, SyntheticRun, synthetic_run, write_run

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need `pip install playwright`"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None:
    pytest.skip("the browser tests need chromium on the path", allow_module_level=True)

# What the browser is waited for, in milliseconds.
PATIENCE = 1000 * HANG
playwright.expect.set_options(timeout=PATIENCE)

ROWS = 60
NEEDLE = "needle <b>bold</b>"


@pytest.fixture(scope="module")
def run() -> SyntheticRun:
    """A run whose every instance has markup in its text, and one the word that is looked for."""
    run = synthetic_run(rows=ROWS)
    for number, instance in enumerate(run.instances):
        instance["subset"] = EVIL if number % 3 else "plain"
        text = NEEDLE if number == 7 else EVIL
        # The first word of the text is all of it.
        instance["text"] = text
        instance["char_start"] = [None if s else 0 for s in instance["special"]]
        instance["char_end"] = [None if s else len(text) for s in instance["special"]]
    run.manifest["identity"]["model"]["source"] = EVIL
    return run


@pytest.fixture(scope="module")
def report(run: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(run, tmp_path_factory.mktemp("run"))
    return write_report(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # A container's root has no sandbox.
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"],
            timeout=PATIENCE,
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report, opened; what the browser complains of fails the test."""
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: said.append(request.url))
    page.set_default_timeout(PATIENCE)
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    page.close()
    said = [text for text in said if not text.startswith(("data:", "blob:"))]
    assert said == [report.as_uri()]


def count(page: Any) -> str:
    return str(page.inner_text("#count"))


def counts(page: Any, text: str) -> None:
    """Waits for what is counted: a text is searched for when the typing pauses."""
    playwright.expect(page.locator("#count")).to_have_text(text)


def first_card(page: Any) -> Any:
    """The first instance, filled: that is done when it is scrolled to."""
    card = page.locator("#instances > li").first
    card.scroll_into_view_if_needed()
    card.locator(".row").first.wait_for()
    return card


def listed(page: Any) -> list[str]:
    return [str(text) for text in page.locator("#instances .id").all_inner_texts()]


def test_every_figure_is_drawn(page: Any) -> None:
    figures = page.locator(".figure")
    assert figures.count() >= 3
    for at in range(figures.count()):
        figure = figures.nth(at)
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for()
        choice = page.locator(f"select[data-chooses='{figure.get_attribute('data-figure')}']")
        if choice.count():
            choice.select_option(index=1)
            playwright.expect(figure).to_have_attribute("data-drawn", "1")


def test_search(page: Any, run: SyntheticRun) -> None:
    assert count(page) == f"1–25 of {len(run.instances)} instances"
    page.fill("#search", "NEEDLE  <b>")
    counts(page, "1–1 of 1 instances")
    (name,) = listed(page)
    assert name == run.instances[7]["instance_id"]
    # The text is there as it is.
    assert NEEDLE in first_card(page).locator(".tokens").first.inner_text()
    page.fill("#search", "there is no such text")
    counts(page, "No instance fits.")
    page.fill("#search", "row-59")
    counts(page, "1–1 of 1 instances")
    assert listed(page) == ["row-59"]
    page.click("#reset")
    counts(page, f"1–25 of {len(run.instances)} instances")


def test_filters(page: Any, run: SyntheticRun) -> None:
    def check(**wanted: Any) -> None:
        fitting = [r for r in run.instances if all(r[key] == v for key, v in wanted.items())]
        expected = sorted(row["instance_id"] for row in fitting)
        most = min(25, len(expected))
        assert count(page) == f"1–{most} of {len(expected)} instances"
        assert listed(page) == expected[:most]

    page.select_option("#by-label", label="neutral")
    check(label=1)
    page.select_option("#by-correct", label="wrong")
    check(label=1, correct=False)
    page.select_option("#by-label", label="any")
    page.select_option("#by-prediction", label="positive")
    check(prediction=2, correct=False)
    page.select_option("#by-correct", label="any")
    page.select_option("#by-subset", label="plain")
    check(prediction=2, subset="plain")
    page.select_option("#by-subset", label=EVIL)
    check(prediction=2, subset=EVIL)
    page.click("#reset")
    page.select_option("#by-method", label="paths")
    lacking = {row["instance_id"] for row in run.failures if row["method"] == "paths"}
    assert len(lacking) == 1
    assert count(page) == f"1–25 of {len(run.instances) - 1} instances"
    assert not lacking & set(listed(page))


def test_pages(page: Any, run: SyntheticRun) -> None:
    first = listed(page)
    before, after = page.locator(".before").first, page.locator(".after").first
    assert before.is_disabled()
    after.click()
    assert count(page) == f"26–50 of {len(run.instances)} instances"
    after.click()
    assert after.is_disabled() and len(listed(page)) == len(run.instances) - 50
    before.click()
    before.click()
    assert listed(page) == first
    page.select_option("#order", label="least sure first")
    surest = {row["instance_id"]: max(row["probabilities"]) for row in run.instances}
    found = [surest[name] for name in listed(page)]
    assert found == sorted(found) and found[0] == min(surest.values())


def test_an_address_names_an_instance(page: Any, run: SyntheticRun) -> None:
    wanted = listed(page)[2]
    link = page.locator("#instances .id").nth(2)
    assert link.get_attribute("href") == f"#instance={quote(wanted)}"
    link.click()
    counts(page, "1–1 of 1 instances")
    assert listed(page) == [wanted]
    page.click("#reset")
    counts(page, f"1–25 of {len(run.instances)} instances")
    assert len(listed(page)) == 25


def test_tables_are_copied_and_sections_stay_at_hand(page: Any) -> None:
    page.evaluate("() => { window.copied = []; copyText = async (t) => window.copied.push(t); }")
    for name in ("CSV", "Markdown", "LaTeX"):
        page.locator("#faithfulness .copies button", has_text=name).click()
    comma, mark, tex = page.evaluate("() => window.copied")
    rows = page.locator("#faithfulness tbody tr").count()
    assert len(comma.splitlines()) == rows + 1 and comma.startswith("method,")
    assert mark.splitlines()[1].startswith("| --- |") and len(mark.splitlines()) == rows + 2
    assert tex.startswith(r"\begin{tabular}") and tex.count(r"\\") == rows + 1
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    assert page.locator("nav.sections").bounding_box()["y"] == pytest.approx(0, abs=1)


def test_methods_side_by_side(page: Any, run: SyntheticRun) -> None:
    card = first_card(page)
    # As the table of faithfulness has them: the best first.
    names = card.locator(".name").all_inner_texts()
    assert sorted(names) == sorted(METHODS)
    areas = {
        row.locator("th").inner_text(): float(row.locator("td").nth(5).get_attribute("data-value"))
        for row in page.locator("#faithfulness tbody tr").all()
    }
    assert names == sorted(names, key=lambda name: -areas[name])
    instance = next(r for r in run.instances if r["instance_id"] == listed(page)[0])
    for at, method in enumerate(names):
        scores = next(
            row["scores"]
            for row in run.attributions
            if (row["instance_id"], row["method"]) == (instance["instance_id"], method)
        )
        spans = card.locator(".row").nth(at).locator(".t")
        titles = spans.evaluate_all("spans => spans.map((span) => span.title)")
        shown = [float(title.rpartition(": ")[2]) for title in titles]
        assert shown == pytest.approx(scores, abs=max(map(abs, scores)) / 127)
        colours = spans.evaluate_all(
            "spans => spans.map(s => ['pos', 'neg', 'seq'].find(c => s.classList.contains(c)))"
        )
        for colour, score in zip(colours, shown, strict=True):
            if METHODS[method]["signed"]:
                assert colour == ("neg" if score < 0 else "pos")
            else:
                assert colour == "seq"
    page.locator("#filters summary").click()
    page.click("#none")
    card = first_card(page)
    assert card.locator(".name").all_inner_texts() == ["text"]
    page.get_by_role("checkbox", name="paths").check()
    card = first_card(page)
    assert card.locator(".name").all_inner_texts() == ["paths"]
    special = card.locator(".t.s").count()
    assert special == sum(instance["special"])
    page.uncheck("#special")
    card = first_card(page)
    assert card.locator(".t.s").count() == 0


def test_sorting(page: Any) -> None:
    def column(at: int) -> list[str]:
        cells = page.locator(f"#faithfulness tbody td:nth-child({at + 1})")
        return [str(value) for value in cells.evaluate_all("c => c.map(x => x.dataset.value)")]

    head = page.locator("#faithfulness thead th")

    def unsorted(better: str) -> int:
        """The first column where that is better and which the table is not sorted by yet."""
        found = head.evaluate_all(
            "(heads, better) => heads.findIndex("
            "h => h.dataset.better === better && !h.hasAttribute('aria-sort'))",
            better,
        )
        assert found > 0
        return int(found)

    higher, lower = unsorted("higher"), unsorted("lower")
    for at, order, first in ((higher, True, "descending"), (lower, False, "ascending")):
        button = head.nth(at).locator("button")
        button.click()
        assert len({*column(at)}) > 1
        assert column(at) == sorted(column(at), key=float, reverse=order)
        assert head.nth(at).get_attribute("aria-sort") == first
        # By the keyboard, the other way round.
        button.press("Enter")
        assert column(at) == sorted(column(at), key=float, reverse=not order)
    assert head.nth(higher).get_attribute("aria-sort") is None
    head.nth(0).locator("button").click()
    names = page.locator("#faithfulness tbody th").all_inner_texts()
    assert names == sorted(METHODS)


def test_light_and_dark(page: Any) -> None:
    def back() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = back()
    page.emulate_media(color_scheme="dark")
    dark = back()
    assert dark != light
    for theme, colour in (("light", light), ("dark", dark), ("auto", dark)):
        page.click("#theme")
        assert page.inner_text("#theme") == f"Theme: {theme}"
        assert back() == colour


def test_a_script_in_the_corpus_does_nothing(page: Any) -> None:
    shown = first_card(page).locator(".tokens").first.inner_text()
    assert "<script>document.title" in shown
    # The title says what the model is called, and is not what the script would make it.
    assert page.title().startswith(EVIL)
    # The scripts are the page's own, and plotly's once it was needed.
    assert page.evaluate("[...document.scripts].filter(s => !s.type).length") in (1, 2)
    assert page.locator("img").count() == 0


def test_not_even_one_that_got_in_would_run(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(report.as_uri())
    ran = page.evaluate(
        "() => { const made = document.createElement('script'); window.ran = false;"
        " made.textContent = 'window.ran = true'; document.body.append(made); return window.ran; }"
    )
    page.close()
    assert ran is False


def test_evidence_page(browser: Any, report: Path) -> None:
    """On a phone: figures are drawn, nothing is fetched or complained of or wider than that."""
    path = write_evidence(report.parent)
    page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="dark")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.set_default_timeout(PATIENCE)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    figure = page.locator("[data-figure='ranks']")
    figure.scroll_into_view_if_needed()
    playwright.expect(figure).to_have_attribute("data-drawn", "0")
    assert page.locator(".claim").count() == 13
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
    assert [text for text in said if not text.startswith(("data:", "blob:"))] == [path.as_uri()]


@pytest.mark.parametrize("width", [700, 1500])
def test_names_of_points_are_apart(browser: Any, width: int, tmp_path: Path) -> None:
    """As they are drawn: a browser's own letters."""
    figure = cost_scatter(crowd(), "auc_difference", "AUC difference")
    path = tmp_path / "cost.html"
    path.write_text(plotted(figure))
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(path.as_uri())
    page.locator(".annotation-text").nth(len(CROWD) - 1).wait_for()
    boxes = page.locator(".annotation-text").evaluate_all(
        "names => names.map(name => [name.textContent, name.getBoundingClientRect().toJSON()])"
    )
    page.close()
    assert sorted(name for name, _ in boxes) == sorted(CROWD)
    apart = [
        one["right"] <= other["left"]
        or other["right"] <= one["left"]
        or one["bottom"] <= other["top"]
        or other["bottom"] <= one["top"]
        for (_, one), (_, other) in combinations(boxes, 2)
    ]
    assert all(apart)


def test_figures_fit_a_phone(browser: Any, report: Path) -> None:
    """Legends are below, and what stands side by side stands in turn."""
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    figure = page.locator("[data-figure='degradation']")
    figure.scroll_into_view_if_needed()
    playwright.expect(figure).to_have_attribute("data-drawn", "0")
    plot, legend = (figure.locator(name).first.bounding_box() for name in (".gridlayer", ".legend"))
    assert legend["y"] > plot["y"] + plot["height"] and plot["width"] > 250
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
