"""The view ``quadrature`` on rows whose sums are known."""

import duckdb
import pytest

from attribeam.schemas.views import VIEWS

_TABLES = """
create table methods as
from (values
    ('ig', '{"rule": "auto", "tolerance": 0.01, "steps": 97}'),
    ('fixed', '{"rule": "gauss_legendre", "tolerance": 0.01, "steps": 50}'),
    ('influence', '{"rule": "nested_early", "tolerance": 0.01, "points": 81}'),
    ('attattr', '{"rule": "nested", "tolerance": 0.01, "steps": 9}')
) as t(method, params);
create table attributions as
from (values
    ('ig', 25, 0.002), ('ig', 49, 0.004), ('ig', 97, 0.03),
    ('fixed', 50, 0.02), ('fixed', 50, null),
    ('influence', 41, 0.001),
    ('saliency', null, null)
) as t(method, steps, error);
create table interactions as
from (values ('attattr', 9, 0.001), ('attattr', 65, 0.011)) as t(method, steps, error);
create table patterns as
from (values
    ('a', 'influence', 21, -0.2, true, 1.0),
    ('a', 'influence', 81, 0.1, false, -4.0),
    ('b', 'influence', 21, 0.1, true, 2.0),
    ('b', 'influence', null, null, null, 2.0)
) as t(instance_id, method, points, error, sure, input_influence);
"""


def test_quadrature() -> None:
    connection = duckdb.connect()
    connection.execute(_TABLES)
    connection.execute(next(view.sql for view in VIEWS if view.name == "quadrature"))
    found = connection.sql("from quadrature").fetchall()
    expected = [
        ("attattr", "interactions", "nested", 0.01, 2, 37, 65, 0.006, 0.011, 1),
        ("fixed", "attributions", "gauss_legendre", None, 2, 50, 50, 0.02, 0.02, 0),
        ("ig", "attributions", "auto", 0.01, 3, 57, 97, 0.004, 0.03, 1),
        ("influence", "attributions", "nested_early", 0.01, 1, 41, 41, 0.001, 0.001, 0),
        ("influence", "patterns", "nested_early", 0.01, 3, 41, 81, 0.05, 0.05, 1),
    ]
    assert len(found) == len(expected)
    for row, right in zip(found, expected, strict=True):
        for value, other in zip(row, right, strict=True):
            numeric = isinstance(other, float)
            assert value == (pytest.approx(other) if numeric else other), (row, right)
