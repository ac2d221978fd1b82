"""The report of pictures: what it says, and that its script draws what Python draws."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from attribeam.analysis import open_run
from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.pictures.drawing import decoded
from attribeam.analysis.pictures.overlays import OVERLAID, drawn
from attribeam.analysis.report.report import write_report
from attribeam.analysis.report.values import of_patches
from tests.analysis.pictures.conftest import METHODS
from tests.support.patience import HANG

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Of a canvas named so: its side, and its numbers, once it is drawn.
_DRAWN = """
async ([card, name]) => {
  const found = [...card.querySelectorAll("canvas")].find((c) => c.ariaLabel === name);
  while (!found.dataset.drawn) await new Promise((done) => setTimeout(done, 5));
  const { data } = found.getContext("2d").getImageData(0, 0, found.width, found.height);
  return [found.width, found.height, [...data]];
}
"""


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(folder, tmp_path_factory.mktemp("report") / "report.html")


def test_it_speaks_of_patches(report: Path) -> None:
    text = re.sub(r"(?s)<script.*?</script>|<style.*?</style>", "", report.read_text("utf-8"))
    assert "a picture on average" in text and "under the pointer" in text
    assert "patches a second" in text and "&amp;" not in text
    # But for the class token and its like.
    named = re.findall(r"(?i)\w+ (?:tokens?|texts?|words?)\b", text)
    assert {found.lower() for found in named} == {"special tokens"}


def test_words() -> None:
    said = of_patches("Scores of tokens, a token's; bt_token on 3 texts, by text and words")
    assert said == "Scores of patches, a patch's; bt_token on 3 pictures, by picture and patches"


@pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need chromium on the path")
def test_its_script_draws_what_python_draws(folder: Path, report: Path) -> None:
    driver = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    with open_run(folder) as connection:
        rows = dict_rows(connection, OVERLAID)
    first = min(row["instance_id"] for row in rows)
    own = [row for row in rows if row["instance_id"] == first]
    expected = {f"map of {row['method']}": drawn(row) for row in own} | {"picture": own[0]["image"]}
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=1000 * HANG
        )
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.set_default_timeout(1000 * HANG)
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        card = page.locator("#instances > li").first
        card.scroll_into_view_if_needed()
        card.locator("canvas").first.wait_for()
        assert card.locator("figcaption").all_inner_texts() == ["picture", *METHODS]
        for name, file in expected.items():
            width, height, numbers = page.evaluate(_DRAWN, [card.element_handle(), name])
            found = np.array(numbers).reshape(height, width, 4)[..., :3]
            wanted = np.asarray(decoded(file), int)
            # Scores are in steps of 1/127 in the page: at most half of one is 0.75 of 255/254.
            assert np.abs(found - wanted).max() <= (0 if name == "picture" else 2), name
        browser.close()
    assert said == []
