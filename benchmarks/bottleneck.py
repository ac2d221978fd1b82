"""What an information bottleneck costs, over bare passes and over the loop it is usually run in.

The bare passes are those that cannot be avoided: the input forward, and for each step but the last
the copies forward and backward through the layers above the bottleneck, the last of them for the
position that is read out alone. The usual loop is plain torch on a plain transformers model: a hook
replaces the layer's output, and every step runs the whole model, forward and backward, with
gradients of all parameters.

What batching alone is worth is measured on sentences of a corpus: all at once against the same code
given one after the other, and against the usual loop.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from attribeam.transforms import Instance, Model, attribute, choose, load_model
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.registry import LastLayers
from benchmarks.material import Material, plain_model, random_instance, stand_in
from benchmarks.timing import in_turn

TOKENS = 64
LAYER = 8
STEPS = 10
COPIES = 10
# The usual loop is slow, and each of its steps costs the same: so many are run, and scaled up.
LOOP_STEPS = 2
ROUNDS = 2
LIMIT = 1.15
SPEED_UP = 5
# Of the sentences, so many are given to the usual loop, and scaled up.
LOOP_SENTENCES = 6
BATCHED = 3


def main(material: Material) -> bool:
    """Prints the ratios; returns whether they are within their limits.

    Args:
        material: The model and corpus for the sentences.
    """
    long = _one_long_text()
    return _sentences(material) and long


def _sentences(material: Material) -> bool:
    """All sentences at once against one at a time."""
    model, instances = material.load()
    layer = LastLayers(4 / 12, least=2).start(model.num_layers)
    choice = choose("iba_released", {"iba_released": {"layer": layer}})
    few = instances[:: max(1, len(instances) // LOOP_SENTENCES)][:LOOP_SENTENCES]
    loops = [_loop(material.model, instance, layer) for instance in few]
    timing = in_turn(
        {
            "batch": lambda: attribute(model, instances, choice),
            "alone": lambda: [attribute(model, [instance], choice) for instance in instances],
            "few": lambda: attribute(model, few, choice),
            "loop": lambda: [loop() for loop in loops],
        },
        ROUNDS,
    )
    alone = timing.ratio("alone", to="batch")
    faster = timing.ratio("loop", to="few") * STEPS / LOOP_STEPS
    print(
        f"{len(instances)} sentences, layer {layer} of {model.num_layers}: "
        f"{timing.median('batch') / len(instances):.3f} s each in batches, {alone:.2f}x as fast as "
        f"one at a time, and {faster:.1f}x as fast as the usual loop (target {BATCHED}x; measured "
        f"on {len(few)} of them)",
        flush=True,
    )
    return faster >= BATCHED


def _one_long_text() -> bool:
    """The method over its bare passes and over the usual loop."""
    with tempfile.TemporaryDirectory() as folder:
        stand_in(Path(folder), layers=12, hidden=768, heads=12)
        model = load_model(folder)
        instance = random_instance(model, TOKENS)
        params = {"layer": LAYER, "steps": STEPS, "copies": COPIES}
        choice = choose("iba_released", {"iba_released": params})
        timing = in_turn(
            {
                "method": lambda: attribute(model, [instance], choice),
                "passes": _bare(model, instance),
                "loop": _loop(Path(folder), instance, LAYER),
            },
            ROUNDS,
        )
    cost = timing.ratio("method", to="passes")
    faster = timing.ratio("loop", to="method") * STEPS / LOOP_STEPS
    print(
        f"layer {LAYER} of 12, {TOKENS} tokens, {STEPS} steps, {COPIES} copies: iba_released takes "
        f"{timing.median('method'):.2f} s, {cost:.2f}x its bare passes (limit {LIMIT}x), and is "
        f"{faster:.1f}x as fast as the usual loop (limit {SPEED_UP}x; {LOOP_STEPS} of its {STEPS} "
        "steps were run)",
        flush=True,
    )
    return cost <= LIMIT and faster >= SPEED_UP


def _bare(model: Model, instance: Instance) -> Callable[[], None]:
    rows = collate(model, [instance]).rows
    state = torch.randn(COPIES, TOKENS, model.network.config.hidden_size)

    def passes() -> None:
        with torch.no_grad():
            model.run(rows)
        for _ in range(STEPS - 1):
            entered = state.clone().requires_grad_()
            logits, _ = model.run(rows.repeated(COPIES), enter=entered, start=LAYER + 1)
            torch.autograd.grad(logits[:, 0].sum(), entered)

    return passes


def _loop(folder: Path, instance: Instance, at: int) -> Callable[[], None]:
    plain = plain_model(folder, attention="eager").requires_grad_()
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long).repeat(COPIES, 1)
    layer = plain.get_submodule(f"bert.encoder.layer.{at}")

    def loop() -> None:
        alpha = torch.full((len(instance), plain.config.hidden_size), 5.0, requires_grad=True)
        optimiser = torch.optim.Adam([alpha], lr=1.0)

        def mix(_: torch.nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
            share = alpha.sigmoid()
            return share * output + (1 - share) * torch.randn_like(output)

        handle = layer.register_forward_hook(mix)
        for _ in range(LOOP_STEPS):
            optimiser.zero_grad()
            logits = plain(ids).logits
            loss = -logits.log_softmax(-1)[:, 0].mean() + 1e-5 * alpha.sigmoid().square().mean()
            loss.backward()
            optimiser.step()
        handle.remove()

    return loop
