"""ViT and its kin: pre-LN encoders of patches of pictures, read at a class token before them."""

from dataclasses import replace
from functools import partial

from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy, Grid, MeanOfHeads
from attribeam.transforms.network.anatomy.bert import encoder_layer

# Where query, key, value and output are, from a layer; and expand, the activation and contract.
PATHS = (
    *("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
    *("mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
)


def grid_of(config: PretrainedConfig, *, specials: tuple[str, ...] = ("[CLS]",)) -> Grid:
    """How pictures are cut up, with so many tokens before those of patches."""
    height, width = _pair(config.image_size)
    return Grid(int(config.num_channels), height, width, *_pair(config.patch_size), specials)


def _pair(size: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """Height and width, of which a configuration may give one for both."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def _vit(name: str, *, specials: tuple[str, ...] = ("[CLS]",)) -> Anatomy:
    """A family whose network is called so, with such tokens before those of patches."""
    return Anatomy(
        layers=f"{name}.layers",
        layer=partial(
            encoder_layer,
            norms=("layernorm_before", "layernorm_after"),
            before=True,
            paths=PATHS,
        ),
        heads={"classification": (f"{name}.layernorm", "classifier")},
        segments=False,
        modality="images",
        grid=partial(grid_of, specials=specials),
        patches=f"{name}.embeddings.patch_embeddings.projection",
        places=f"{name}.embeddings.position_embeddings",
    )


def _deit(row: Anatomy, config: PretrainedConfig) -> Anatomy:
    """The network has a second head where it was taught by another (DeiT's distillation)."""
    if config.architectures != ["DeiTForImageClassificationWithTeacher"]:
        return row
    heads = MeanOfHeads(("cls_classifier", "distillation_classifier"))
    return replace(
        row,
        heads={"classification": ("deit.layernorm", heads)},
        spread=1,
        pooling="cls+distill",
    )


FAMILIES = {
    "vit": _vit("vit"),
    "vit_msn": _vit("vit"),
    # DeiT has a token for a teacher's class beside that of its own.
    "deit": replace(_vit("deit", specials=("[CLS]", "[DISTILL]")), variant=_deit),
    # I-JEPA has no token for a class: each patch is normalised, and the mean is read.
    "ijepa": replace(_vit("ijepa", specials=()), spread=1, pooling="mean"),
}
