"""DINOv2, with registers or without: a ViT whose branches are scaled, read at two places.

The scales of a branch's units (LayerScale) are a part of the map that it ends with. A linear head
is given what the token of the class has and, beside it, the mean of the patches.
"""

from typing import Any

from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy, Grid, two_steps
from attribeam.transforms.network.anatomy.vit import grid_of
from attribeam.transforms.network.parts import Affine, Attention, FeedForward, Layer, Norm


def _layer(module: Any, heads: int) -> Layer:
    mixing, mlp = module.attention, module.mlp
    query, key, value = (Affine(getattr(mixing, f"{name}_proj")) for name in "qkv")
    output = Affine(mixing.o_proj, scale=module.layer_scale1.lambda1)
    attention = Attention(query, key, value, output, heads, heads, factor=mixing.scaling)
    scale = module.layer_scale2.lambda1
    if hasattr(mlp, "gate_proj"):
        contract = Affine(mlp.down_proj, scale=scale)
        wide = FeedForward(Affine(mlp.up_proj), mlp.act_fn, contract, Affine(mlp.gate_proj))
    else:
        wide = FeedForward(Affine(mlp.fc1), mlp.activation_fn, Affine(mlp.fc2, scale=scale))
    before = Norm(module.norm1), Norm(module.norm2)
    return two_steps(module, attention, wide, before=before)


def _grid(config: PretrainedConfig) -> Grid:
    """Registers stand between the token of the class and the patches."""
    registers = getattr(config, "num_register_tokens", 0)
    names = (f"[REG{number}]" for number in range(1, registers + 1))
    return grid_of(config, specials=("[CLS]", *names))


def _dinov2(name: str) -> Anatomy:
    return Anatomy(
        layers=f"{name}.encoder.layer",
        layer=_layer,
        heads={"classification": (f"{name}.layernorm", "classifier")},
        segments=False,
        spread=1,
        modality="images",
        grid=_grid,
        pooling="cls+mean",
    )


FAMILIES = {
    "dinov2": _dinov2("dinov2"),
    "dinov2_with_registers": _dinov2("dinov2_with_registers"),
}
