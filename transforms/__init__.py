"""What is computed on a batch: encoding, passes, methods and perturbations. No Beam, no files.

>>> from transforms import attribute, encode, load_model
>>> model = load_model("examples/models/sentiment-bert")
>>> instances = encode(model, ["the plot is not at all dull ."])
>>> result = attribute(model, instances, ["integrated_gradients"])
>>> result.rows["integrated_gradients"][0].scores
"""

# The folder of methods comes before the function of that name, whose place it would else take.
import transforms.methods  # noqa: F401
from transforms.attribute import Attribution, Attributions, Prediction, attribute
from transforms.batch import Instance
from transforms.bottleneck import Statistics, collect
from transforms.encode import encode
from transforms.loading import load_model
from transforms.model import Model
from transforms.registry import Chosen, Method, choose, methods
from transforms.row import EncodeOptions, Row, RowError

__all__ = [
    "Attribution",
    "Attributions",
    "Chosen",
    "EncodeOptions",
    "Instance",
    "Method",
    "Model",
    "Prediction",
    "Row",
    "RowError",
    "Statistics",
    "attribute",
    "choose",
    "collect",
    "encode",
    "load_model",
    "methods",
]
