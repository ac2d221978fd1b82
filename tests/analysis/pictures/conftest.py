"""A run over bundled pictures, with their masks."""

from pathlib import Path

import pytest

import examples
from attribeam.pipeline import Options, run

EXAMPLES = Path(examples.__file__).parent
METHODS = ("integrated_gradients", "raw_attention", "saliency")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures under three methods, the first of which has signed scores."""
    out = tmp_path_factory.mktemp("pictures") / "out"
    model, corpus = EXAMPLES / "models" / "shapes-vit", EXAMPLES / "data" / "shapes.parquet"
    chosen = {"methods": ",".join(METHODS), "evaluation": None, "limit": 4, "device": "cpu"}
    run(Options(str(model), str(corpus), str(out), **chosen))
    return out
