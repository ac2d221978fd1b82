"""Integrated gradients with 50 steps, against captum: one instance at a time, and 16 padded.

Captum is given what a careful user gives it: the attention mask, the same baseline, frozen weights,
and of its two ways to take the batch of 16 (all steps at once, or some at a time) the quicker one.
"""

from collections.abc import Callable, Sequence

import torch
from captum.attr import LayerIntegratedGradients

from attribeam.transforms import Instance, Model, attribute, choose
from attribeam.transforms.inputs.kinds import collate
from benchmarks.material import Material, plain_model
from benchmarks.timing import in_turn

STEPS = 50
BATCH = 16
INTERNAL = 4 * BATCH
ALONE, BATCHED = 2.0, 1.2


def main(material: Material) -> bool:
    """Prints both ratios; returns whether they reach their limits."""
    model, instances = material.load()
    instances = instances[: 2 * BATCH]
    chosen = choose(
        "integrated_gradients", {"integrated_gradients": {"preset": "fixed", "steps": STEPS}}
    )
    plain = plain_model(material.model)
    batches = [instances[at : at + BATCH] for at in range(0, len(instances), BATCH)]
    timing = in_turn(
        {
            "ours": lambda: attribute(model, instances, chosen),
            "ours, 16 at a time": lambda: [attribute(model, b, chosen) for b in batches],
            "captum, one at a time": _captum(plain, model, [[i] for i in instances], None),
            "captum, step by step": _captum(plain, model, [[i] for i in instances], 1),
            "captum, 16 padded": _captum(plain, model, batches, None),
            "captum, 16 padded, 4 steps at a time": _captum(plain, model, batches, INTERNAL),
        }
    )
    for name in timing.seconds:
        print(f"  {name}: {timing.median(name) / len(instances):.3f} s an instance")
    alone = timing.ratio("captum, one at a time", to="ours")
    batched = min(
        timing.ratio(name, to="ours, 16 at a time")
        for name in timing.seconds
        if name.startswith("captum, 16")
    )
    stepwise = timing.ratio("captum, step by step", to="ours")
    print(
        f"captum's time over ours, one instance at a time: {alone:.2f}x with all steps at once "
        f"(target {ALONE}x), {stepwise:.2f}x step by step"
    )
    print(f"captum's time over ours, the same batches of 16: {batched:.2f}x (target {BATCHED}x)")
    return alone >= ALONE and batched >= BATCHED


def _captum(
    network: torch.nn.Module,
    model: Model,
    batches: Sequence[Sequence[Instance]],
    internal: int | None,
) -> Callable[[], None]:
    def forward(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(input_ids=ids, attention_mask=mask).logits
        return logits

    layer = network.get_submodule("bert.embeddings")
    method = LayerIntegratedGradients(forward, layer)

    def call() -> None:
        for instances in batches:
            batch = collate(model, instances)
            ids, mask = batch.rows.inputs["input_ids"], batch.rows.attention_mask
            with torch.no_grad():
                target = forward(ids, mask).argmax(-1)
            baseline = ids.masked_fill(batch.removable, model.pad_id or 0)
            method.attribute(
                ids,
                baselines=baseline,
                target=target,
                additional_forward_args=(mask,),
                n_steps=STEPS,
                internal_batch_size=internal,
                return_convergence_delta=True,
            )

    return call
