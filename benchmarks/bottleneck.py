"""What an information bottleneck costs, over bare passes and over the loop it is usually run in.

The bare passes are those that cannot be avoided: the input forward, and for each step but the last
the copies forward and backward through the layers above the bottleneck, the last of them for the
position that is read out alone. The usual loop is plain torch on a plain transformers model: a hook
replaces the layer's output, and every step runs the whole model, forward and backward, with
gradients of all parameters.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.material import plain_model, random_instance, stand_in
from benchmarks.timing import in_turn
from transforms import Instance, Model, attribute, choose, load_model
from transforms.batch import collate

TOKENS = 64
LAYER = 8
STEPS = 10
COPIES = 10
# The usual loop is slow, and each of its steps costs the same: so many are run, and scaled up.
LOOP_STEPS = 2
ROUNDS = 2
LIMIT = 1.15
SPEED_UP = 5


def main() -> bool:
    """Prints both ratios; returns whether they are within their limits."""
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
                "loop": _loop(Path(folder), instance),
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
    rows = collate([instance], model.pad_id, model.device).rows
    state = torch.randn(COPIES, TOKENS, model.network.config.hidden_size)

    def passes() -> None:
        with torch.no_grad():
            model.run(rows)
        for _ in range(STEPS - 1):
            entered = state.clone().requires_grad_()
            with model.above(LAYER):
                logits, _ = model.run(rows.repeated(COPIES), enter=entered)
            torch.autograd.grad(logits[:, 0].sum(), entered)

    return passes


def _loop(folder: Path, instance: Instance) -> Callable[[], None]:
    plain = plain_model(folder, attention="eager").requires_grad_()
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long).repeat(COPIES, 1)
    layer = plain.get_submodule(f"bert.encoder.layer.{LAYER}")

    def loop() -> None:
        alpha = torch.full((TOKENS, plain.config.hidden_size), 5.0, requires_grad=True)
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
