"""The scripts of use do what they say."""

from pathlib import Path

import pytest

from examples import use_compare, use_keep, use_pictures, use_sentence, use_words


def test_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    use_sentence.main()
    said = capsys.readouterr().out
    assert "decompx  [CLS] I did not find" in said and "saliency" in said


def test_methods_are_compared_and_words_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use_compare.main(str(tmp_path / "out"), limit=8)
    assert "integrated_gradients" in capsys.readouterr().out
    use_words.main(str(tmp_path / "out"))
    said = capsys.readouterr().out
    assert "negative" in said and "positive" in said and "texts" in said


def test_pictures(tmp_path: Path) -> None:
    use_pictures.main(str(tmp_path / "maps.html"), number=2)
    page = (tmp_path / "maps.html").read_text()
    # Two pictures, each with two maps; plotly writes no slash in what it takes from us.
    assert page.count("data:image\\u002fpng") == 6


def test_what_is_kept(tmp_path: Path) -> None:
    use_keep.main(str(tmp_path / "out"), str(tmp_path / "page"))
    assert (tmp_path / "page/README.md").is_file()
