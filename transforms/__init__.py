"""What is computed on a batch: encoding, passes, methods and perturbations. No Beam, no files.

>>> import attribeam as ab
>>> model = ab.load_model("examples/models/sentiment-bert")
>>> instances = ab.encode(model, ["the plot is not at all dull ."])
>>> result = ab.attribute(model, instances, ["integrated_gradients"])
>>> result.rows["integrated_gradients"][0].scores
"""

# The folder of methods comes before the function of that name, whose place it would else take.
import attribeam.transforms.methods  # noqa: F401
from attribeam.transforms.attribute import Attribution, Attributions, Prediction, attribute
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.encode import encode
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError
from attribeam.transforms.network.loading import load_model
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.bottleneck import Statistics, collect
from attribeam.transforms.registry import Chosen, Method, choose, methods

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
