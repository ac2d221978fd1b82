"""Contrast of the report's colours, measured as WCAG 2.2 has it: at least AA for what is read."""

import re
from importlib.resources import files

import pytest

from attribeam.analysis.instances import html

CSS = (files("attribeam.analysis") / "templates" / "report.css").read_text("utf-8")
AA = 4.5
# Text and page of notebooks: Jupyter's and Visual Studio Code's, light and dark, and the report's.
NOTEBOOKS = (
    ("#212121", "#ffffff"),
    ("#e1e1e1", "#111111"),
    ("#3b3b3b", "#ffffff"),
    ("#cccccc", "#1f1f1f"),
    ("#e6e8eb", "#14171b"),
)
Colour = tuple[float, float, float]


def blocks() -> dict[str, dict[str, str]]:
    """The variables of each theme: light, dark as chosen, dark as the system says."""
    found = re.findall(r"(:root[^{]*)\{([^}]*--back[^}]*)\}", CSS)
    names = {
        ":root": "light",
        ':root[data-theme="dark"]': "dark",
        ':root:not([data-theme="light"])': "system",
    }
    return {
        names[selector.strip()]: dict(re.findall(r"--([a-z]+):\s*([^;]+);", body))
        for selector, body in found
    }


def colour(text: str) -> Colour:
    if text.startswith("#"):
        red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
    else:
        red, green, blue = (int(part) for part in re.split(r"[ ,]+", text.strip()))
    return red, green, blue


def over(top: Colour, share: float, back: Colour) -> Colour:
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(top, back, strict=True))
    return red, green, blue


def luminance(of: Colour) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in of)
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: Colour, other: Colour) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast(colour("#777777"), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark", "system"])
@pytest.mark.parametrize("ink", ["pos", "neg", "seq"])
def test_words_and_the_legend_are_read_at_any_strength(theme: str, ink: str) -> None:
    of = blocks()[theme]
    text, back = colour(of["text"]), colour(of["back"])
    for step in range(21):
        share = step / 20 * float(of["most"])
        assert contrast(text, over(colour(of[ink]), share, back)) >= AA, (theme, ink, step)


@pytest.mark.parametrize("theme", ["light", "dark", "system"])
def test_what_is_beside_them(theme: str) -> None:
    of = blocks()[theme]
    for ink in ("text", "soft", "accent", "error"):
        assert contrast(colour(of[ink]), colour(of["back"])) >= AA, ink
    for ink in ("text", "soft"):
        assert contrast(colour(of[ink]), colour(of["raised"])) >= AA, ink


@pytest.mark.parametrize(("text", "page"), NOTEBOOKS)
@pytest.mark.parametrize("ink", [html._POSITIVE, html._NEGATIVE, html._UNSIGNED])
def test_a_notebook_may_be_light_or_dark(ink: str, text: str, page: str) -> None:
    for step in range(21):
        back = over(colour(ink), step / 20 * html._MOST, colour(page))
        assert contrast(colour(text), back) >= AA, step
