"""What a run names as the next command is one that works where its folder is."""

import pytest

from attribeam.pipeline.commands.run import asked


@pytest.mark.parametrize(
    ("output", "command"),
    [
        ("my run", "attribeam query 'my run'"),
        ("s3://bucket/run", "attribeam query s3://bucket/run"),
        ("gs://bucket/run", "attribeam query gs://bucket/run"),
        ("hdfs://host/run", "(of a copy of hdfs://host/run) attribeam query COPY"),
    ],
)
def test_stores_that_queries_do_not_read_take_a_copy(output: str, command: str) -> None:
    assert asked(output) == command
