"""Papers: every citation of a method is known, by a title, authors and an address."""

import re

from attribeam.schemas.catalogue import catalogue
from attribeam.schemas.papers import PAPERS, papers_in

CITATION = re.compile(r"[A-Z][\w-]+ (?:et al\.|& [A-Z][\w-]+) \d{4}")


def test_every_citation_is_of_a_known_paper() -> None:
    texts = [entry["paper"] for entry in catalogue().values()]
    cited = {found for text in texts for found in CITATION.findall(text)}
    assert len(cited) > 20
    assert cited <= {paper.cited for paper in PAPERS}
    assert {paper.cited for paper in papers_in(texts)} == cited


def test_papers_are_told_apart() -> None:
    cvpr, iccv = papers_in(["Chefer et al. 2021 (ICCV), equation 5", "after Chefer et al. 2021"])
    assert (cvpr.arxiv, iccv.arxiv) == ("2103.15679", "2012.09838")
    assert papers_in(["control", "ours"]) == []
    assert papers_in(["Hao et al. 2021", "ours, from Hao et al. 2021"]) == papers_in(
        ["Hao et al. 2021"]
    )


def test_each_has_a_key_an_address_and_braces_that_match() -> None:
    assert (
        len({paper.key for paper in PAPERS}) == len({paper.link for paper in PAPERS}) == len(PAPERS)
    )
    for paper in PAPERS:
        assert paper.year.isdigit() and re.fullmatch(r"[a-z]+\d{4}[a-z]+", paper.key)
        assert paper.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", paper.arxiv)
        assert paper.link.startswith("https://")
        assert paper.bibtex.count("{") == paper.bibtex.count("}")
        assert f"author = {{{paper.authors}}}" in paper.bibtex
