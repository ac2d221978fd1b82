"""One call in a notebook: what it takes, what it gives, and what is kept of it."""

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import transformers
from PIL import Image

import attribeam as ab
from attribeam.analysis.publish.publish import publish
from attribeam.analysis.report.report import write_report
from attribeam.pipeline.explaining.explanation import Explanation
from attribeam.pipeline.explaining.given import corpus_of, model_folder
from attribeam.schemas import table_schema
from attribeam.schemas.errors import UsageTypeError
from attribeam.transforms.inputs.given_scores import Given

MODEL = Path("examples/models/sentiment-bert").absolute()
TEXTS = ["I did not find the sound mediocre.", "the plot is <b>dull</b>"]


@pytest.fixture(scope="module")
def explained() -> Explanation:
    return ab.explain(MODEL, TEXTS, ["integrated_gradients", "saliency"])


def test_scores_are_those_of_attribute(explained: Explanation) -> None:
    model = ab.load_model(MODEL)
    instances = ab.encode(model, TEXTS)
    rows = ab.attribute(model, instances, ["integrated_gradients", "saliency"]).rows
    for method, expected in rows.items():
        query = "select scores from attributions where method = $of order by instance_id"
        found = explained.sql(query, of=method).fetchall()
        for (scores,), one in zip(found, expected, strict=True):
            assert one is not None
            assert scores == pytest.approx(one.scores, rel=1e-4, abs=1e-6)


def test_it_shows_sentences_in_colours(explained: Explanation) -> None:
    html = explained._repr_html_()
    assert ">dull</span>" in html and "<b>dull" not in html
    assert "<script" not in html
    # The strongest word of each method and text is as strong as colours are.
    spans = re.findall("<span style=[^>]*,0.6[^>]*>", html)
    assert len([span for span in spans if "opacity:.5" not in span]) == 4 + 3  # And the legend's.
    text = repr(explained)
    assert "integrated_gradients" in text and "predicted" in text
    assert max(map(len, text.splitlines())) <= 80
    assert not [line for line in text.splitlines() if line.startswith("text:")]  # No guess.


def test_data_has_the_columns_of_the_tables(explained: Explanation) -> None:
    assert explained.to_arrow().column_names == table_schema("attributions").names
    assert explained.to_arrow("instances").column_names == table_schema("instances").names
    frame = explained.to_pandas()
    assert set(frame["method"]) == {"integrated_gradients", "saliency"}
    assert set(frame["instance_id"]) == {"0", "1"} == set(explained.ids)


def test_the_plot_has_a_map_for_each_text(explained: Explanation) -> None:
    figure = explained.plot()
    assert len(figure.data) == len(TEXTS)
    assert list(figure.data[0].y) == ["integrated_gradients", "saliency"]
    assert np.nanmax(np.abs(np.array(figure.data[0].z, float))) == pytest.approx(1)


def test_what_is_kept_is_a_run(explained: Explanation, tmp_path: Path) -> None:
    kept = explained.save(tmp_path / "out")
    assert not ab.verify(tmp_path / "out").problems
    assert kept.ids == ["0", "1"]
    assert write_report(tmp_path / "out").stat().st_size > 1000
    published = publish(tmp_path / "out", "me/it", dry_run=tmp_path / "hub", tell=lambda _: None)
    assert published.files
    with pytest.raises(ab.UsageError, match="there already"):
        explained.save(tmp_path / "out")
    assert list(tmp_path.glob(".attribeam*")) == []


def test_its_folder_goes_when_it_is_closed() -> None:
    result = ab.explain(MODEL, {"text": "so good", "label": "positive"}, "random")
    assert result.sql("select label from instances").fetchall() == [(1,)]
    assert any("label: label" in note for note in result.notes)
    folder = Path(result.folder).parent
    assert folder.is_dir() and not (folder / "model").exists()
    result.close()
    assert not folder.exists()


@pytest.mark.parametrize("form", ["model", "pipeline", "loaded"])
def test_models_from_memory_are_saved(form: str, tmp_path: Path) -> None:
    if form == "loaded":
        folder = model_folder(ab.load_model(MODEL), tmp_path)
    else:
        network = transformers.AutoModelForSequenceClassification.from_pretrained(MODEL)
        tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
        if form == "model":
            folder = model_folder(network, tmp_path, tokenizer)
        else:
            both = transformers.TextClassificationPipeline(model=network, tokenizer=tokenizer)
            folder = model_folder(both, tmp_path)
    assert Path(folder) == tmp_path / MODEL.name
    again = ab.load_model(folder)
    encoded = ab.encode(again, TEXTS)
    expected = ab.attribute(ab.load_model(MODEL), encoded, []).predictions
    for found, one in zip(ab.attribute(again, encoded, []).predictions, expected, strict=True):
        assert found is not None and one is not None
        assert found.logits == pytest.approx(one.logits)


def test_what_a_corpus_may_be(tmp_path: Path) -> None:
    def table(given: object) -> pa.Table:
        return pa.parquet.read_table(corpus_of(given, tmp_path).path)

    assert table("one").to_pylist() == [{"text": "one", "id": "0"}]
    assert table(["a", "b"])["id"].to_pylist() == ["0", "1"]
    assert table([("a", "b")]).to_pylist() == [{"text": "a", "text_pair": "b", "id": "0"}]
    assert table([ab.Row("x", text="a", label=1)]).to_pylist() == [
        {"id": "x", "text": "a", "label": 1}
    ]
    assert table([{"text": "a"}, {"text": "b", "label": 2}])["label"].to_pylist() == [None, 2]
    assert table(pa.table({"text": ["a"]}).to_pandas()).to_pylist() == [{"text": "a", "id": "0"}]
    picture = Image.new("RGB", (3, 2), "red")
    picture.save(tmp_path / "red.png")
    for given in (picture, np.asarray(picture), tmp_path / "red.png", str(tmp_path / "red.png")):
        (row,) = table([given]).to_pylist()
        assert Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").getpixel((2, 1)) == (
            255,
            0,
            0,
        )
    assert corpus_of(Path("reviews.csv"), tmp_path).path == "reviews.csv"


def test_pictures_are_shown_as_overlays() -> None:
    rows = pa.parquet.read_table("examples/data/shapes.parquet").slice(0, 1)
    picture = Image.open(io.BytesIO(rows["image"][0].as_py()["bytes"]))
    result = ab.explain("examples/models/shapes-vit", picture, ["saliency", "raw_attention"])
    assert result._repr_html_().count("data:image/png;base64,") == 3  # With the picture itself.
    assert len(result.plot().layout.images) == 3
    assert not result.notes


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "nothing to explain"), (7, "give a text, a picture"), ([object()], "can't be explained")],
)
def test_what_is_no_corpus_is_refused(texts: object, message: str) -> None:
    with pytest.raises(ab.UsageError, match=message):
        ab.explain(MODEL, texts, "random")


def test_other_mistakes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ab.UsageError, match="did you mean saliency"):
        ab.explain(MODEL, TEXTS, ["salliency"])
    with pytest.raises(UsageTypeError, match="give a folder, a hub id"):
        ab.explain(3, TEXTS)
    with pytest.raises(ab.UsageError, match="no option 'devise'"):
        ab.explain(MODEL, TEXTS, "random", devise="cpu")
    with pytest.raises(ab.UsageError, match="has its own"):
        model_folder(str(MODEL), tmp_path, object())
    scored = ab.Row("x", text="a", given={"theirs": [Given([0.5])]})
    with pytest.raises(ab.UsageError, match=r"x has scores that others computed \(theirs\)"):
        corpus_of([scored], tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("a.csv").touch()
    with pytest.raises(ab.UsageError, match=r"pathlib\.Path\('a.csv'\)"):
        corpus_of("a.csv", tmp_path)
