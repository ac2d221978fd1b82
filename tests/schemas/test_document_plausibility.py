"""Plausibility of whole texts, put together from windows, against ERASER's definitions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from attribeam.schemas import VIEWS, table_schema
from tests.schemas.test_metric_views import select
from tests.support.synthetic_run import Row

_TABLES = ("instances", "attributions", "failures")
_VIEWS = (
    *("document_tokens", "documents", "span_firsts", "span_lasts"),
    *("matching_spans", "harmonic_mean"),
    *("document_word_ranks", "document_plausibility"),
)


@dataclass
class Corpus:
    """Windows over texts whose words are two tokens each."""

    instances: list[Row] = field(default_factory=list)
    attributions: list[Row] = field(default_factory=list)

    def add(
        self,
        name: str,
        window: int | None,
        words: range,
        rationale: Sequence[int],
        scores: dict[str, list[float]],
        *,
        target: int = 0,
        whole: bool = False,
    ) -> None:
        """Adds a window, with a score for each of its tokens under each method."""
        tokens = [word for word in words for _ in range(2)]
        own = f"{name}-{window}"
        first = window in (None, 0)
        self.instances.append(
            {
                "instance_id": own,
                "row_id": name,
                "window": window,
                "tokens": ["[CLS]", *("x" for _ in tokens)],
                "special": [True, *(False for _ in tokens)],
                "segment": [0] * (len(tokens) + 1),
                "word_ids": [None, *tokens],
                "char_start": [None, *(2 * word + at % 2 for at, word in enumerate(tokens))],
                "char_end": [None, *(2 * word + at % 2 + 1 for at, word in enumerate(tokens))],
                "rationale": [0, *(rationale[word] for word in tokens)],
                "text_rationale": list(rationale) if first and not whole else None,
                "prediction": target,
                "logits": [float(target == 0), float(target == 1)],
                "probabilities": [1.0 - target, float(target)],
            }
        )
        for method, values in scores.items():
            assert len(values) == len(tokens)
            row = {"instance_id": own, "method": method, "target": target}
            self.attributions.append({**row, "scores": [99.0, *values]})

    def opened(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        rows: dict[str, list[Row]] = {
            "instances": self.instances,
            "attributions": self.attributions,
            "failures": [],
        }
        for name in _TABLES:
            own = pa.Table.from_pylist(rows[name], table_schema(name, double=True))
            connection.register(f"_{name}", own)
            connection.execute(f"create table {name} as from _{name}")
        connection.execute("create table methods as select 'sums' as method, 'sum' as word_score")
        by_name = {view.name: view for view in VIEWS}
        for name in _VIEWS:
            connection.execute(by_name[name].sql)
        return connection


def test_windows_are_put_together() -> None:
    corpus = Corpus()
    marks = [0, 1, 0, 0, 1]
    # Word 2 is in both windows, where its tokens have other scores.
    one = {"sums": [0.0, 1, 2, 2, 1, 1], "peaks": [0.0, 1, 2, 2, 1, 1]}
    two = {"sums": [3.0, 1, 0, 0, -9, 9], "peaks": [3.0, 1, 0, 0, -9, 9]}
    corpus.add("r", 0, range(3), marks, one)
    corpus.add("r", 1, range(2, 5), marks, two)
    found = {row["method"]: row for row in select(corpus.opened(), "from document_word_ranks")}
    assert found["sums"]["scores"] == [1, 4, 2 + 1, 0, 0]
    assert found["peaks"]["scores"] == [1, 2, 2, 0, 9]
    assert found["peaks"]["ranked"] == [5, 2, 3, 1, 4]
    assert [found["sums"][name] for name in ("words", "unseen", "marked")] == [5, 0, [2, 5]]


def test_words_that_were_never_seen_are_missed() -> None:
    corpus = Corpus()
    corpus.add("r", None, range(2), [1, 0, 0, 1], {"sums": [3.0, 0, 0, 0]})
    connection = corpus.opened()
    (row,) = select(connection, "from document_word_ranks")
    assert (row["words"], row["unseen"], row["marked"]) == (4, 2, [1, 4])
    assert row["ranked"] == [1, 2, 3, 4]
    (row,) = select(connection, "from document_plausibility")
    assert (row["token_f1"], row["eraser_share"], row["eraser_token_f1"]) == (0.5, 0.5, 0.5)
    assert (row["n"], row["text_words"], row["unseen"]) == (1, 4, 2)


def test_of_windows_of_two_classes_those_of_most_places_count() -> None:
    corpus = Corpus()
    marks = [1, 0, 0]
    corpus.add("r", 0, range(2), marks, {"sums": [1.0, 1, 0, 0]})
    corpus.add("r", 1, range(2, 3), marks, {"sums": [9.0, 9]}, target=1)
    (row,) = select(corpus.opened(), "from document_word_ranks")
    assert (row["scores"], row["unseen"]) == ([2, 0, -1], 1)


def test_metrics_are_erasers() -> None:
    rng = np.random.default_rng(0)
    corpus = Corpus()
    texts = {}
    for number, words in enumerate((8, 13, 20)):
        marks = (rng.random(words) < 0.4).astype(int)
        marks[:2] = 1, 0
        scores = rng.normal(size=words)
        tokens = [float(value) for score in scores for value in (score, 0)]
        corpus.add(f"r{number}", None, range(words), marks.tolist(), {"sums": tokens}, whole=True)
        texts[number] = (marks, scores)
    (row,) = select(corpus.opened(), "from document_plausibility")
    share = np.mean([marks.mean() for marks, _ in texts.values()])
    f1, average, area = [], [], []
    for marks, scores in texts.values():
        k = max(1, int(share * len(marks) + 0.5))
        hits = marks[np.argsort(-scores)[:k]].sum()
        f1.append(2 * hits / (k + marks.sum()))
        average.append(average_precision_score(marks, scores))
        precision, recall, _ = precision_recall_curve(marks, scores)
        area.append(auc(recall, precision))
    assert row["eraser_share"] == pytest.approx(share)
    assert row["eraser_token_f1"] == pytest.approx(np.mean(f1))
    assert row["average_precision"] == pytest.approx(np.mean(average))
    assert 0 <= row["eraser_iou_f1"] <= 1
    assert row["auprc"] == pytest.approx(np.mean(area))
    assert (row["n"], row["unseen"], row["left_out"]) == (3, 0, 0)


def test_methods_are_compared_on_the_same_texts() -> None:
    corpus = Corpus()
    corpus.add("r", None, range(2), [1, 0], {"sums": [1.0, 1, 0, 0], "peaks": [0.0, 0, 1, 1]})
    corpus.add("s", None, range(2), [1, 0], {"sums": [0.0, 0, 1, 1]})
    connection = corpus.opened()
    sql = "select method, n, token_f1, left_out from {} order by method"
    found = select(connection, sql.format("document_plausibility"))
    assert [tuple(row.values()) for row in found] == [("peaks", 1, 0, 1), ("sums", 1, 1, 1)]
    found = select(connection, sql.format("document_plausibility_over(common := false)"))
    assert [tuple(row.values()) for row in found] == [("peaks", 1, 0, 1), ("sums", 2, 0.5, 0)]
