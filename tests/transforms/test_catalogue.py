"""The methods in words, which commands read without torch."""

from importlib.resources import files

from attribeam.schemas.catalogue import CATALOGUE
from attribeam.transforms.catalogue import text


def test_it_is_what_the_registry_says() -> None:
    """If not, write it anew: python -m attribeam.transforms.catalogue."""
    stored = (files("attribeam.schemas") / CATALOGUE).read_text(encoding="utf-8")
    assert stored == text()
