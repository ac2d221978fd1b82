"""Writes a method's scores as captum would have given them: padded tensors in an ``.npz`` file.

    python -m examples.captum_npz OUT integrated_gradients scores.npz

``attributions`` and ``input_ids`` are [rows, tokens], ``attention_mask`` says what isn't padding,
``ids`` and ``targets`` which instance and class a row is of (-1 for none).
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from attribeam.analysis import open_run

_QUERY = """
select i.instance_id, i.input_ids, a.scores, coalesce(a.target, -1) as target
from attributions as a join instances as i using (instance_id)
where a.method = $method order by i.corpus_row, i.instance_id
"""


def padded(rows: Sequence[Sequence[Any]], kind: type) -> np.ndarray[Any, Any]:
    """Rows as one array, with zeros after those that are shorter."""
    found: np.ndarray[Any, Any] = np.zeros((len(rows), max(map(len, rows), default=0)), kind)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = values
    return found


def main(folder: str, method: str, path: str) -> None:
    """Writes the scores of a method of a run."""
    with open_run(folder, commented=False) as connection:
        rows = connection.execute(_QUERY, {"method": method}).fetchall()
    ids, tokens, scores, targets = zip(*rows, strict=True) if rows else ((), (), (), ())
    np.savez_compressed(
        path,
        attributions=padded(scores, np.float32),
        input_ids=padded(tokens, np.int32),
        attention_mask=padded([[1] * len(row) for row in tokens], np.int8),
        ids=np.array(ids, np.str_),
        targets=np.array(targets, np.int32),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
