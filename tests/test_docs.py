"""The pages of the site: each is in its navigation, and links lead to what is there."""

import re
from importlib import import_module
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
ELSEWHERE = {"examples.md", "contributing.md"}


def pages(nav: list[object]) -> list[str]:
    found: list[str] = []
    for entry in nav:
        if isinstance(entry, str):
            found.append(entry)
        elif isinstance(entry, dict):
            found += [page for part in entry.values() for page in pages(part)]
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    nav = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert len(nav) == len({*nav})
    assert {*nav} == {path.name for path in DOCS.glob("*.md")} | ELSEWHERE


def test_links_lead_somewhere() -> None:
    lost = [
        f"{page.name}: {target}"
        for page in DOCS.glob("*.md")
        for target in LINK.findall(page.read_text("utf-8"))
        if not (DOCS / target).exists()
    ]
    assert lost == []


def test_what_the_reference_names_is_there() -> None:
    names = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
    assert len(names) > 5
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name
