"""What functions for use from Python are given and don't take: sentences, no tracebacks."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attribeam.pipeline import Options, run
from attribeam.schemas import UsageError
from attribeam.transforms import (
    EncodeOptions,
    Instance,
    Model,
    Row,
    attribute,
    choose,
    collect,
    encode,
    load_model,
)
from tests.conftest import LoadTiny


@pytest.fixture(scope="module")
def bert(tiny: LoadTiny) -> Model:
    return tiny("bert")


def refusal(function: Any, *given: Any, **more: Any) -> str:
    """The sentence; it is a wrong type for Python, and bad usage for whoever prints it."""
    with pytest.raises(UsageError) as caught:
        function(*given, **more)
    assert isinstance(caught.value, TypeError)
    return str(caught.value)


def test_a_pair_of_texts(bert: Model) -> None:
    pair, same = encode(bert, [("the film", "it was dull"), Row("x", "the film", "it was dull")])
    assert (pair.instance_id, pair.text_pair) == ("text-0", "it was dull")
    assert pair.tokens == same.tokens
    assert encode(bert, iter(["the film"]))[0].text == "the film"


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("good", "the texts are a str: give a list of them"),
        (Row("a", "good"), "the texts are a Row: give a list of them"),
        (b"good", "the texts are a bytes: give a list of strings"),
        ({"text": "good"}, "the texts are a dict"),
        (None, "the texts are None"),
        (3, "the texts are a int"),
        ([None], "text 0 is None: give a string, a pair"),
        (["good", 3], "text 1 is a int"),
        ([{"text": "good"}], "text 0 is a dict"),
        ([b"good"], "text 0 is a bytes"),
        ([("a", "b", "c")], "text 0 is a tuple"),
        ([("a", None)], "text 0 is a tuple"),
        (pa.table({"text": ["good"]}), "the texts are a Table: give the column that holds them"),
        ([Row("a", 5)], "the text of row 'a' is a int"),  # type: ignore[arg-type]
        ([Row("a", "b", ["c"])], "the text_pair of row 'a' is a list"),  # type: ignore[arg-type]
    ],
)
def test_texts_that_are_none(bert: Model, texts: Any, says: str) -> None:
    assert says in refusal(encode, bert, texts)


def test_a_model_that_is_none_of_ours(bert: Model) -> None:
    instances = encode(bert, ["good"])
    for function, more in (
        (encode, (["good"],)),
        (attribute, (instances, "w")),
        (collect, (instances, 9)),
    ):
        path = refusal(function, "examples/models/sentiment-bert", *more)
        assert path == "the model is a str: give load_model('examples/models/sentiment-bert')"
        network = refusal(function, bert.network, *more)
        assert "the model is a BertForSequenceClassification: give load_model(FOLDER)" in network


@pytest.mark.parametrize("given", ["good", ["good"], None, [Row("a", "good")]])
def test_instances_that_are_none(bert: Model, given: Any) -> None:
    assert "give encode(model, [TEXT])" in refusal(attribute, bert, given, "w")


def test_options_and_methods_that_are_none(bert: Model) -> None:
    assert "the options are a int: give EncodeOptions" in refusal(encode, bert, ["good"], 128)
    instances = encode(bert, ["good"])
    for methods in (None, 3, [None], choose("w")[0]):
        assert "give names, or choose(NAMES)" in refusal(attribute, bert, instances, methods)
    wrong: tuple[dict[str, Any], ...] = (
        {"max_length": 0},
        {"max_length": None},
        {"max_length": 9, "overflow": "cut"},
        {"max_length": 9, "words": "blanks"},
    )
    for options in wrong:
        with pytest.raises(UsageError, match=r"(max_length|overflow|words) is "):
            EncodeOptions(**options)


def test_a_single_instance(bert: Model) -> None:
    instance: Instance = encode(bert, ["good"])[0]
    assert "give a list of them" in refusal(attribute, bert, instance, "w")


def test_what_is_loaded_and_run(bert: Model, tmp_path: Path) -> None:
    assert "takes the path of a folder, not a BertFor" in refusal(load_model, bert.network)
    assert "run takes attribeam.Options, not a dict" in refusal(run, {"model": "m"})
    places: dict[str, Any] = {"model": Path("m"), "corpus": Path("c"), "output": tmp_path}
    options = Options(**places)
    assert (options.model, options.corpus, options.output) == ("m", "c", str(tmp_path))
    for name, value in (("model", bert), ("corpus", [{"text": "good"}]), ("output", None)):
        assert f"{name} is a " in refusal(Options, **{**places, name: value})


@pytest.mark.parametrize("value", ["3", 3.0, np.int64(3)])
def test_numbers_of_options(value: Any) -> None:
    options = Options(model="model", corpus="corpus", output="out", limit=value)
    assert "limit is a whole number (int), and not a " in refusal(run, options)
