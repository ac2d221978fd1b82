"""Which column means what, what becomes of values, and the copy in the run's folder."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribeam.pipeline.corpus import staging as corpus
from attribeam.pipeline.corpus.columns import ROLES, choose_columns
from attribeam.pipeline.corpus.fields import Field
from attribeam.pipeline.corpus.sources import Part, Source
from attribeam.pipeline.corpus.staging import open_corpus, read_rows, stage, understood
from attribeam.schemas import UsageError
from attribeam.transforms import Model, Row
from tests.support.tiny import Rows, rows, write_jsonl

TINY = "bert"


@pytest.fixture(scope="module")
def classifier(tiny: Callable[..., Model]) -> Model:
    return tiny(TINY)


@pytest.fixture(scope="module")
def masked_lm(tiny: Callable[..., Model]) -> Model:
    return tiny(TINY, "masked_lm")


def source_of(rows: Rows, columns: tuple[str, ...] | None = None) -> Source:
    """A source of given rows; its columns are those of the first unless they are given."""
    names = tuple(rows[0]) if columns is None else columns
    return source_from(names, lambda: iter(rows))


def source_from(names: Iterable[str], rows: Callable[[], Iterator[dict[str, Any]]]) -> Source:
    """A source of columns of which nothing but the names is known."""
    part = Part(
        "it", dict.fromkeys(names, Field()), None, lambda _: ((row, None) for row in rows())
    )
    return Source("it", "0", (part,))


def staged(
    model: Model, root: Path, rows: Rows, *, shard_size: int = 512, limit: int | None = None
) -> list[Row]:
    """The rows of a corpus after they went through the run's folder."""
    total = stage(
        understood(source_of(rows), {}, model, limit), str(root), shard_size=shard_size
    ).rows
    found = [row for at in range(-(-total // shard_size)) for row in read_rows(str(root), at)]
    assert len(found) == total
    return found


def columns_of(names: str, model: Model, **given: str) -> dict[str, str]:
    return choose_columns(source_of([], tuple(names.split())), given, model)


# Columns


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("text label id", {"text": "text", "label": "label", "id": "id"}),
        ("idx sentence label", {"text": "sentence", "label": "label", "id": "idx"}),
        ("premise hypothesis label", {"text": "premise", "pair": "hypothesis", "label": "label"}),
        ("sentence1 sentence2", {"text": "sentence1", "pair": "sentence2"}),
        ("question1 question2", {"text": "question1", "pair": "question2"}),
        ("question sentence label idx",  # QNLI
         {"text": "question", "pair": "sentence", "label": "label", "id": "idx"}),
        ("passage question", {"text": "question", "pair": "passage"}),
        ("text text_pair", {"text": "text", "pair": "text_pair"}),
        ("text rationale", {"text": "text", "rationale": "rationale"}),
        ("tweet target guid", {"text": "tweet", "label": "target", "id": "guid"}),
        ("review class", {"text": "review", "label": "class"}),
        ("body rationales", {"text": "body", "rationale": "rationales"}),
        ("hypothesis text", {"text": "text"}),
        ("text good bad", {"text": "text"}),
        ("text input_ids token_type_ids", {"text": "text"}),
        ("input_ids token_type_ids label rationale",
         {"input_ids": "input_ids", "token_type_ids": "token_type_ids", "label": "label"}),
    ],
)  # fmt: skip
def test_columns_are_guessed_by_name(
    names: str, columns: dict[str, str], classifier: Model
) -> None:
    assert columns_of(names, classifier) == columns


def test_a_named_column_wins(classifier: Model) -> None:
    given = {"text": "body", "pair": "title", "label": "stars", "id": "none"}
    assert columns_of("id text label body title stars", classifier, **given) == {
        "text": "body",
        "pair": "title",
        "label": "stars",
    }


def test_none_is_no_column(classifier: Model) -> None:
    given = {"label": "none", "pair": "none", "rationale": "none"}
    assert columns_of("premise hypothesis label rationale", classifier, **given) == {
        "text": "premise"
    }


def test_a_rationale_of_second_texts_needs_these(classifier: Model) -> None:
    names = "premise hypothesis rationale rationale_pair"
    roles = {"text": "premise", "pair": "hypothesis", "rationale": "rationale"}
    assert columns_of(names, classifier) == {**roles, "rationale_pair": "rationale_pair"}
    first = {"text": "premise", "rationale": "rationale"}
    assert columns_of(names, classifier, pair="none") == first
    message = "--rationale-pair-column marks: .* second texts .*: name one with --pair-column"
    with pytest.raises(UsageError, match=message):
        columns_of("text other marks", classifier, rationale_pair="marks")


def test_a_missing_text_column_is_explained(classifier: Model) -> None:
    message = "no text column that could be guessed; its columns are a, b: name one with --text-col"
    with pytest.raises(UsageError, match=message):
        columns_of("a b", classifier)
    with pytest.raises(UsageError, match="is empty: it has no columns"):
        columns_of("", classifier)


@pytest.mark.parametrize("role", ROLES)
def test_a_named_column_must_be_there(role: str, classifier: Model) -> None:
    flag = f"--{role.replace('_', '-')}-column"
    message = rf"it has no column 'nope' \({flag}\); its columns are text, label"
    with pytest.raises(UsageError, match=message):
        columns_of("text label", classifier, **{role: "nope"})


def test_a_masked_lm_needs_two_words(masked_lm: Model) -> None:
    assert columns_of("text good bad label", masked_lm) == {
        "text": "text",
        "good": "good",
        "bad": "bad",
    }
    given = {"good": "right"}
    assert columns_of("text right bad", masked_lm, **given)["good"] == "right"
    with pytest.raises(UsageError, match="contrast of two words, but it has no column 'bad'; its"):
        columns_of("text good", masked_lm)


def test_without_a_tokenizer_only_ids_will_do(classifier: Model) -> None:
    bare = replace(classifier, tokenizer=None)
    assert columns_of("text input_ids label", bare) == {"input_ids": "input_ids", "label": "label"}
    with pytest.raises(
        UsageError, match="no tokenizer, so the corpus must hold input_ids; its col"
    ):
        columns_of("text label", bare)


# Values


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (2, 2),
        (True, 1),
        (-1, None),
        (None, None),
        (1.0, 1),
        (-1.0, None),
        (float("nan"), None),
        ("2", 2),
        (" 1 ", 1),
        ("1.0", 1),  # A column with gaps, by way of pandas and CSV.
        ("-1", None),
        ("", None),
        ("LABEL_2", 2),
        ("label_0", 0),
        (7, 7),  # Out of range is for encoding to say.
        (-2, -2),
    ],
)
def test_labels_are_numbers_of_classes(
    given: Any, label: int | None, classifier: Model, tmp_path: Path
) -> None:
    (row,) = staged(classifier, tmp_path, [{"text": "a", "label": given}])
    assert (row.label, row.problem) == (label, None)


@pytest.mark.parametrize(
    "given", ["nope", "--1", "1.5", 1.5, float("inf"), [1], {"a": 1}, 10**30, "9" * 30, 1e300, "²"]
)
def test_other_labels_are_problems(given: Any, classifier: Model, tmp_path: Path) -> None:
    row, after = staged(
        classifier, tmp_path, [{"text": "a", "label": given, "id": "x"}, {"text": "b"}]
    )
    assert row.label is None
    assert str(row.problem).startswith("the label ")
    # The row is found again by its own id, and its neighbour is none the worse.
    assert (row.instance_id, row.text) == ("x", "a")
    assert (after.text, after.problem) == ("b", None)


@pytest.mark.parametrize(
    ("given", "rationale"),
    [
        ([0, 1], [0, 1]),
        ([False, True], [0, 1]),
        ([0.0, 1.0], [0, 1]),
        ("[0, 1]", [0, 1]),
        ("[0,1]", [0, 1]),
        ("0 1", [0, 1]),
        ([], []),
        (None, None),
    ],
)
def test_rationales_are_lists_or_texts(
    given: Any, rationale: list[int] | None, classifier: Model, tmp_path: Path
) -> None:
    (row,) = staged(classifier, tmp_path, [{"text": "the film", "rationale": given}])
    assert (row.rationale, row.problem) == (rationale, None)


@pytest.mark.parametrize(
    "given", [["x"], "yes no", 3, [0.5, 1], [300], [10**30], [float("inf")], [float("nan")], [[0]]]
)
def test_other_rationales_are_problems(given: Any, classifier: Model, tmp_path: Path) -> None:
    (row,) = staged(classifier, tmp_path, [{"text": "the film", "rationale": given}])
    assert row.rationale is None
    assert str(row.problem).startswith("rationale is not a list of small integers: ")


@pytest.mark.parametrize("role", ["text", "text_pair", "id"])
def test_half_a_character_is_a_problem(role: str, classifier: Model, tmp_path: Path) -> None:
    (row,) = staged(classifier, tmp_path, [{"text": "a", role: "\ud83d", "label": 1}])
    assert "holds a lone surrogate" in str(row.problem)
    assert row.label == 1


@pytest.mark.parametrize("text", [5, {"a": 1}, True])
def test_a_text_is_a_string(text: Any, classifier: Model, tmp_path: Path) -> None:
    (row,) = staged(classifier, tmp_path, [{"text": text}])
    assert row.problem == f"the text is a {type(text).__name__}, not a string"


def test_words_to_contrast_are_words_or_numbers(masked_lm: Model, tmp_path: Path) -> None:
    words = {"text": "a [MASK]", "good": " good ", "bad": "7"}
    (row,) = staged(masked_lm, tmp_path, [words])
    assert (row.good, row.bad) == ("good", "7")
    numbers = {"input_ids": [2, 4, 3], "good": "12", "bad": 13}
    (row,) = staged(masked_lm, tmp_path, [numbers])
    assert (row.input_ids, row.good, row.bad) == ([2, 4, 3], 12, 13)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    rows=st.lists(
        st.fixed_dictionaries(dict.fromkeys(("text", "text_pair", "label", "rationale"), VALUE)),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_a_row_holds_it_comes_through(
    rows: Rows, classifier: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = staged(classifier, tmp_path_factory.mktemp("any"), rows, shard_size=3)
    for row, given_row in zip(found, rows, strict=True):
        if row.problem is None:
            text = given_row["text"]
            nothing = text == "" or text != text  # NaN
            assert row.text == (
                " ".join(text) if isinstance(text, list) else None if nothing else text
            )


# Ids


def test_ids_are_the_corpus_own(classifier: Model, tmp_path: Path) -> None:
    found = staged(classifier, tmp_path, [{"text": "a", "id": 7}, {"text": "a", "id": "b"}])
    assert [row.instance_id for row in found] == ["7", "b"]


@pytest.mark.parametrize("shard_size", [2, 100])
def test_an_id_that_is_there_twice_is_refused(
    shard_size: int, classifier: Model, tmp_path: Path
) -> None:
    twice = [*rows(5), {"id": "r1", "text": "again", "label": 0}]
    message = (
        r"more than one row with the id 'r1' \(column 'id'\); --id-column names another, or no"
    )
    with pytest.raises(UsageError, match=message):
        staged(classifier, tmp_path, twice, shard_size=shard_size)


@pytest.mark.parametrize("shard_size", [2, 100])
def test_generated_ids_are_unique_and_the_same_every_time(
    shard_size: int, classifier: Model, tmp_path: Path
) -> None:
    alike = [{"text": "the same"}] * 7
    names = [
        [row.instance_id for row in staged(classifier, tmp_path / str(t), alike, shard_size=size)]
        for t, size in enumerate((shard_size, 3))
    ]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(alike)


def test_generated_ids_tell_of_the_content(classifier: Model, tmp_path: Path) -> None:
    first, second = (
        staged(classifier, tmp_path / text, [{"text": text}])[0].instance_id for text in "ab"
    )
    assert first != second
    assert first.startswith("row-0-")


def test_an_empty_id_is_generated(classifier: Model, tmp_path: Path) -> None:
    found = staged(classifier, tmp_path, [{"text": "a", "id": ""}, {"text": "b", "id": None}])
    assert len({row.instance_id for row in found} - {"", "None"}) == 2


# Staging


def test_a_file_a_shard_in_order(classifier: Model, tmp_path: Path) -> None:
    given_rows = rows(7)
    found = staged(classifier, tmp_path, given_rows, shard_size=3)
    assert [row.instance_id for row in found] == [row["id"] for row in given_rows]
    assert [row.label for row in found] == [row["label"] for row in given_rows]
    assert [row.corpus_row for row in found] == [*range(7)]
    sizes = {path.name: pq.read_metadata(path).num_rows for path in (tmp_path / "corpus").iterdir()}
    assert sizes == {f"rows-0000{n}.parquet": size for n, size in enumerate((3, 3, 1))}


def test_staging_again_leaves_nothing_of_before(classifier: Model, tmp_path: Path) -> None:
    staged(classifier, tmp_path, rows(7), shard_size=2)
    staged(classifier, tmp_path, rows(2), shard_size=2)
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["rows-00000.parquet"]


def test_a_corpus_without_rows_is_refused(classifier: Model, tmp_path: Path) -> None:
    source = source_of([], ("text",))
    with pytest.raises(UsageError, match="it has no rows"):
        stage(understood(source, {}, classifier), str(tmp_path), shard_size=2)


def test_problems_and_splits_of_the_source_come_through(classifier: Model, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "dev.jsonl", [{"text": "a"}, "damaged", {"text": "c"}])
    stage(open_corpus(str(path), classifier), str(tmp_path), shard_size=9)
    first, second, third = read_rows(str(tmp_path), 0)
    assert str(second.problem).startswith("line 2 is not JSON")
    assert (first.text, second.text, third.text) == ("a", None, "c")
    assert {row.split for row in (first, second, third)} == {"dev"}


def test_the_limit_ends_the_reading(classifier: Model, tmp_path: Path) -> None:
    def rows_read() -> Iterator[dict[str, Any]]:
        yield from ({"text": f"{number}"} for number in range(10))
        raise AssertionError("more was read")

    source = source_from(["text"], rows_read)
    assert stage(understood(source, {}, classifier, 10), str(tmp_path), shard_size=4) == (10, 4)
    assert [row.text for shard in range(3) for row in read_rows(str(tmp_path), shard)] == [
        f"{n}" for n in range(10)
    ]


@pytest.mark.parametrize(
    ("count", "size"), [(1, 2), (5, 2), (6, 2), (7, 3), (9, 3), (14, 5), (40, 5)]
)
def test_shards_follow_the_size_of_the_corpus(
    count: int, size: int, classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two rows at least and five at most, so that there are three if that can be."""
    for name, value in (("_FEWEST", 2), ("_MOST", 5), ("_SHARDS", 3)):
        monkeypatch.setattr(corpus, name, value)
    assert corpus.shard_size_for(count) == size
    source = source_of([{"text": f"{number}"} for number in range(count)])
    found = stage(understood(source, {}, classifier), str(tmp_path), shard_size=None)
    assert found == (count, size)
    shards = -(-count // size)
    assert len([*(tmp_path / "corpus").iterdir()]) == shards
    texts = [row.text for shard in range(shards) for row in read_rows(str(tmp_path), shard)]
    assert texts == [f"{number}" for number in range(count)]


def test_no_more_than_a_shard_is_held(
    classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100,000 rows, those read and not yet written are one shard's."""
    size, total = 1000, 100_000
    read = written = most = 0

    def rows_read() -> Iterator[dict[str, Any]]:
        nonlocal read, most
        for number in range(total):
            read += 1
            most = max(most, read - written)
            yield {"id": number, "text": "a"}

    def write(path: str, table: Any) -> None:
        nonlocal written
        written += len(table)

    monkeypatch.setattr(corpus, "write_parquet", write)
    source = source_from(["id", "text"], rows_read)
    assert stage(understood(source, {}, classifier), str(tmp_path), shard_size=size).rows == total
    assert (read, written, most) == (total, total, size)
