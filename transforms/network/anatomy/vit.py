"""ViT: a pre-LN encoder of patches of pictures, read at a class token before them."""

from functools import partial

from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy, Grid
from attribeam.transforms.network.anatomy.bert import encoder_layer

_PATHS = (
    *("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
    *("mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
)


def _grid(config: PretrainedConfig) -> Grid:
    height, width = _pair(config.image_size)
    return Grid(int(config.num_channels), height, width, *_pair(config.patch_size), before=1)


def _pair(size: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """Height and width, of which a configuration may give one for both."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


FAMILIES = {
    "vit": Anatomy(
        layers="vit.layers",
        layer=partial(
            encoder_layer,
            norms=("layernorm_before", "layernorm_after"),
            before=True,
            paths=_PATHS,
        ),
        heads={"classification": ("vit.layernorm", "classifier")},
        segments=False,
        modality="images",
        grid=_grid,
        patches="vit.embeddings.patch_embeddings.projection",
        places="vit.embeddings.position_embeddings",
    ),
}
