"""ALBERT: a post-LN encoder whose layers share their weights."""

from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from attribeam.transforms.network.anatomy.base import Anatomy
from attribeam.transforms.network.anatomy.bert import OF_TOKENS, encoder_layer


def _layers(network: PreTrainedModel) -> list[nn.Module]:
    """Layers in the order in which they are run, each as often as it is."""
    groups: Any = network.get_submodule("albert.encoder.albert_layer_groups")
    times = network.config.num_hidden_layers
    return [
        layer
        for number in range(times)
        for layer in groups[int(number / (times / len(groups)))].albert_layers
    ]


FAMILIES = {
    "albert": Anatomy(
        layers=_layers,
        layer=partial(
            encoder_layer,
            norms=("attention.LayerNorm", "full_layer_layer_norm"),
            paths=(
                *("attention.query", "attention.key", "attention.value", "attention.dense"),
                *("ffn", "activation", "ffn_output"),
            ),
        ),
        embedding_norm="albert.embeddings.LayerNorm",
        projection="albert.encoder.embedding_hidden_mapping_in",
        heads={
            "classification": ("albert.pooler", functional.tanh, "classifier"),
            **OF_TOKENS,
            "masked_lm": (
                "predictions.dense",
                "predictions.activation",
                "predictions.LayerNorm",
                "predictions.decoder",
            ),
        },
    ),
}
