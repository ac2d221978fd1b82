"""How much faster self-attention attribution is than the loop it is usually computed in.

The usual loop is plain torch on a plain transformers model: for each layer, the points of the path
are a batch of copies of the text, which is run from the embeddings up; hooks put each copy's share
of the attention in place of the layer's, and autograd differentiates by it. What it costs grows by
the same amount from point to point and, with the layers that gradients are taken through, from
layer to layer, so that some points of some layers tell what all of them cost.

On one text both take the same points. On texts of the lengths that sentences have, our default,
midpoints that are doubled where they miss completeness, stands against the authors' default: 64
points, the text padded to 128 tokens.

How exact the integrals are is measured on sentences of a corpus, against 64 Gauss-Legendre points.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn

from attribeam.transforms import Instance, Model, load_model
from attribeam.transforms.inputs.batch import TOKEN_BUDGETS
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.inputs.targets import Explained
from attribeam.transforms.passes.attention_path import (
    LayerAttribution,
    attention_attributions,
    observe,
)
from attribeam.transforms.passes.base import Rule, quadrature
from benchmarks.material import CORPUS, Material, plain_model, random_instance, stand_in
from benchmarks.timing import in_turn

DEPTH = 12
# The loop is slow: these layers, which are the mean of all twelve, are run, and scaled up.
LOOP_LAYERS = (2, 9)
TOKENS, STEPS = 64, 20
PADDED, AUTHORS_STEPS, AUTHORS_BATCH = 128, 64, 16
OUR_STEPS, OUR_MOST = 10, 40
# Tokens of typical sentences of SST-2, special ones included.
LENGTHS = (11, 19, 27, 39)
# Rule, points, and most points of what is compared, and of what it is compared with.
SETTINGS: dict[str, tuple[Rule, int, int]] = {
    "default": ("midpoint", OUR_STEPS, OUR_MOST),
    "10 midpoints": ("midpoint", 10, 10),
    "64 left points": ("left", 64, 64),
    "20 left points": ("left", 20, 20),
    "20 right points": ("right", 20, 20),
}
REFERENCE: tuple[Rule, int, int] = ("gauss_legendre", 64, 64)
ROUNDS = 1
SAME_STEPS, AS_SHIPPED = 1.25, 8.0


def main(material: Material) -> bool:
    """Prints ratios and errors; returns whether they reach their limits.

    Args:
        material: The model and sentences that integrals are taken of. Lengths are taken from them
            too, unless the corpus is the bundled one.
    """
    with tempfile.TemporaryDirectory() as folder:
        stand_in(Path(folder), layers=DEPTH, hidden=768, heads=12)
        model = load_model(folder)
        plain = plain_model(Path(folder), attention="eager")
        good = _same_steps(model, plain)
        good = _as_shipped(model, plain, _lengths(model, material)) and good
    return _quadrature_errors(material) and good


def _same_steps(model: Model, plain: nn.Module) -> bool:
    instance = random_instance(model, TOKENS)
    timing = in_turn(
        {
            "ours": lambda: _ours(model, [instance], "left", steps=STEPS, most=STEPS),
            "loop": _loop(plain, instance, STEPS, STEPS),
        },
        ROUNDS,
    )
    faster = timing.ratio("loop", to="ours") * DEPTH / len(LOOP_LAYERS)
    print(
        f"{TOKENS} tokens, {STEPS} left points: {timing.median('ours'):.1f} s, {faster:.2f}x as "
        f"fast as the usual loop (limit {SAME_STEPS}x; {len(LOOP_LAYERS)} of its {DEPTH} layers "
        "were run)",
        flush=True,
    )
    return faster >= SAME_STEPS


def _as_shipped(model: Model, plain: nn.Module, lengths: Sequence[int]) -> bool:
    instances = [random_instance(model, length) for length in lengths]
    used: list[float] = []
    timing = in_turn(
        {
            "ours": lambda: used.append(
                _ours(model, instances, "midpoint", steps=OUR_STEPS, most=OUR_MOST)
            ),
            "loop": _loop(plain, random_instance(model, PADDED), AUTHORS_STEPS, AUTHORS_BATCH),
        },
        ROUNDS,
    )
    share = AUTHORS_BATCH / AUTHORS_STEPS * len(LOOP_LAYERS) / DEPTH
    faster = timing.ratio("loop", to="ours") / share * len(instances)
    print(
        f"{', '.join(map(str, lengths))} tokens, {used[-1]:.1f} midpoints on average: "
        f"{timing.median('ours') / len(instances):.1f} s a text, {faster:.1f}x as fast as the "
        f"usual loop over {AUTHORS_STEPS} points, padded to {PADDED} tokens "
        f"(limit {AS_SHIPPED:.0f}x; {AUTHORS_BATCH} points of {len(LOOP_LAYERS)} layers of "
        "one text were run)",
        flush=True,
    )
    return faster >= AS_SHIPPED


def _quadrature_errors(material: Material) -> bool:
    """Whether the default is more exact than the authors' default, in the mean over texts."""
    model, instances = material.load()
    errors: dict[str, list[float]] = {name: [] for name in SETTINGS}
    gaps: dict[str, list[float]] = {name: [] for name in SETTINGS}
    used: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for instance in instances:
        exact = _attributions(model, instance, *REFERENCE)
        largest = max(float(layer.scores.abs().max()) for layer in exact)
        for name, setting in SETTINGS.items():
            found = _attributions(model, instance, *setting)
            pairs = zip(found, exact, strict=True)
            error = max(float((a.scores - b.scores).abs().max()) for a, b in pairs)
            errors[name].append(error / largest)
            gaps[name] += [float(layer.gap) for layer in found]
            used[name] += [float(layer.steps) for layer in found]
    for name in SETTINGS:
        of, gap = np.array(errors[name]), np.array(gaps[name])
        print(
            f"  {name}: {np.mean(used[name]):.1f} points; largest error of a text over its largest "
            f"attribution {of.mean():.2%} in the mean, {np.quantile(of, 0.95):.2%} at the "
            f"95th percentile, {of.max():.2%} at most; gap {gap.mean():.4f}, {gap.max():.4f} at "
            "most",
            flush=True,
        )
    return float(np.mean(errors["default"])) < float(np.mean(errors["64 left points"]))


def _attributions(
    model: Model, instance: Instance, rule: Rule, steps: int, most: int
) -> list[LayerAttribution]:
    states = observe(model, collate(model, [instance]).rows)
    return list(
        attention_attributions(
            states,
            Explained("logit", states.logits.argmax(-1)),
            rule=rule,
            steps=steps,
            most=most,
            tolerance=0.01,
            budget=TOKEN_BUDGETS["cpu"],
        )
    )


def _lengths(model: Model, material: Material) -> Sequence[int]:
    """Typical lengths, or so many quantiles of a given corpus."""
    if material.corpus == CORPUS:
        return LENGTHS
    every = [len(instance) for instance in material.instances(model)]
    places = (np.arange(len(LENGTHS)) + 0.5) / len(LENGTHS)
    return [int(length) for length in np.quantile(every, places, method="nearest")]


def _ours(
    model: Model,
    instances: Sequence[Instance],
    rule: Rule,
    *,
    steps: int,
    most: int,
) -> float:
    """Attributes each text by itself; returns the mean number of points."""
    used = []
    for instance in instances:
        used += [float(layer.steps) for layer in _attributions(model, instance, rule, steps, most)]
    return sum(used) / len(used)


def _loop(plain: nn.Module, instance: Instance, steps: int, batch: int) -> Callable[[], None]:
    """The first batch of the points of ``LOOP_LAYERS``."""
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
    alphas = torch.from_numpy(quadrature("left", steps)[0][:batch]).float()

    def loop() -> None:
        with torch.no_grad():
            found = plain(ids, output_attentions=True)
        target = int(found.logits.argmax())
        for layer in LOOP_LAYERS:
            attention = found.attentions[layer]
            scaled = (alphas[:, None, None, None] * attention).requires_grad_()
            with ExitStack() as hooks:
                _replace(hooks, plain.get_submodule(f"bert.encoder.layer.{layer}"), scaled)
                logits = plain(ids.repeat(batch, 1)).logits
            explained = logits.softmax(-1)[:, target].sum()
            (gradient,) = torch.autograd.grad(explained, scaled)
            _ = attention * gradient.sum(0) / steps

    return loop


def _replace(hooks: ExitStack, layer: nn.Module, attention: torch.Tensor) -> None:
    """Puts attention [n, H, T, T] in place of a layer's own."""
    kept: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, values: torch.Tensor) -> None:
        kept.append(values.unflatten(-1, (attention.shape[1], -1)).transpose(1, 2))

    def mix(_: nn.Module, __: object) -> tuple[torch.Tensor]:
        return ((attention @ kept[0]).transpose(1, 2).flatten(2),)

    value = layer.get_submodule("attention.self.value")
    hooks.callback(value.register_forward_hook(keep).remove)
    output = layer.get_submodule("attention.output.dense")
    hooks.callback(output.register_forward_pre_hook(mix).remove)
