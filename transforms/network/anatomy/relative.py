"""Post-LN encoders that add to the scores of attention what lies between two positions.

Their attention is computed by code of their own: its probabilities are seen on their way through
the dropout after the softmax.
"""

from functools import partial

from torch.nn import functional
from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy
from attribeam.transforms.network.anatomy.bert import (
    BERT_PATHS,
    BERT_WORDS,
    OF_TOKENS,
    ROBERTA_HEADS,
    encoder_layer,
)


def _refuse_deberta(config: PretrainedConfig, task: str) -> str | None:
    if getattr(config, "conv_kernel_size", 0) > 0:
        return "it has a convolution beside its first layer"
    if getattr(config, "embedding_size", config.hidden_size) != config.hidden_size:
        return "its embeddings are projected before they are normalised"
    if task == "classification" and config.pooler_hidden_act != "gelu":
        return f"its pooler's activation is {config.pooler_hidden_act}, and gelu is known"
    if task == "masked_lm" and not config.legacy:
        return 'its head is not that of "legacy": true'
    return None


FAMILIES = {
    "mpnet": Anatomy(
        layers="mpnet.encoder.layer",
        layer=partial(
            encoder_layer,
            norms=("attention.LayerNorm", "output.LayerNorm"),
            paths=(
                *("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
                *BERT_PATHS[4:],
            ),
            dropout="attention.attn.dropout",
        ),
        embedding_norm="mpnet.embeddings.LayerNorm",
        heads=ROBERTA_HEADS,
        positions_after_padding=True,
        segments=False,
        indexed=True,
    ),
    "deberta-v2": Anatomy(
        layers="deberta.encoder.layer",
        layer=partial(
            encoder_layer,
            norms=("attention.output.LayerNorm", "output.LayerNorm"),
            paths=(
                *("attention.self.query_proj", "attention.self.key_proj"),
                *("attention.self.value_proj", *BERT_PATHS[3:]),
            ),
            dropout="attention.self.dropout",
        ),
        embedding_norm="deberta.embeddings.LayerNorm",
        heads={
            "classification": ("pooler.dense", functional.gelu, "classifier"),
            **OF_TOKENS,
            "masked_lm": BERT_WORDS,
        },
        indexed=True,
        refuse=_refuse_deberta,
    ),
}
