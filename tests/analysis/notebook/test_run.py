"""An opened run as an object that shows itself."""

from pathlib import Path

import pytest

import attribeam as ab
from attribeam.analysis.notebook.run import Run
from attribeam.analysis.notebook.topics import views_by_topic
from attribeam.schemas import VIEWS
from tests.support.synthetic_run import synthetic_run, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return ab.open_run(write_run(synthetic_run(), tmp_path_factory.mktemp("run")))


def test_it_says_what_ran_and_what_can_be_asked(run: Run) -> None:
    text = repr(run)
    assert "methods: " in text and "faithfulness" in text
    assert f"{len(run.ids)} instances, 3 methods" in text
    assert max(len(line) for line in text.splitlines()[1:]) <= 80
    html = run._repr_html_()
    assert "<details>" in html and "degradation_curves" in html


def test_every_view_has_a_topic() -> None:
    topics = views_by_topic()
    named = [name for names in topics.values() for name in names]
    assert len(named) == len(set(named))
    assert {view.name for view in VIEWS if not view.is_macro} <= set(named)
    assert "others" not in topics


def test_it_is_a_connection_too(run: Run) -> None:
    assert run.execute("select count(*) from instances").fetchall() == [(len(run.ids),)]
    (method, *_) = run.methods
    query = "select count(*) from attributions where method = $name"
    assert run.sql(query, name=method).fetchall()[0][0] > 0
    with pytest.raises(AttributeError):
        run.nothing_of_the_kind  # noqa: B018
    assert not [name for name in dir(run) if name.startswith("_")]


def test_an_instance_shows_itself(run: Run) -> None:
    name = run.sql("select min(instance_id) from attributions").fetchall()[0][0]
    one = run.instance(name, ["paths"])
    assert name in repr(one) and name in one._repr_html_()
    frame = one.to_pandas()
    scores = run.sql(
        "select scores from attributions where layer is null and method = 'paths'"
        " and instance_id = $name",
        name=name,
    ).fetchall()[0][0]
    assert frame["paths"].tolist() == scores
    assert one.plot().data[0].y == ("paths",)
    assert dir(one) == ["plot", "to_pandas"]


def test_mistakes_name_what_was_meant(run: Run) -> None:
    with pytest.raises(ab.UsageError, match="no instance 'x': there are"):
        run.instance("x")
    with pytest.raises(ab.UsageError, match="did you mean gradient"):
        run.instance(run.ids[0], ["gradiant"])
    with pytest.raises(ab.UsageError, match="did you mean degradation"):
        run.plot("degradatoin")


def test_plots_are_figures(run: Run) -> None:
    assert len(run.plot().data) == 2 * 3  # Both orders of each method.


def test_a_context_ends_it(tmp_path: Path) -> None:
    with ab.open_run(write_run(synthetic_run(rows=2), tmp_path)) as opened:
        assert opened.ids
    with pytest.raises(Exception, match="closed"):
        opened.execute("select 1")
