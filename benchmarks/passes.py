"""What the six first methods cost together, against the bare passes that they need.

The bare passes are plain torch on a plain transformers model (its default attention, frozen
weights), on the same batches: one forward, one forward and backward, and a forward and backward per
step of the path.
"""

from collections.abc import Callable

import torch

from attribeam.transforms import attribute, choose
from attribeam.transforms.inputs.batch import TOKEN_BUDGETS, Batch, pack
from attribeam.transforms.inputs.kinds import collate
from benchmarks.material import Material, plain_model
from benchmarks.timing import in_turn

METHODS = "random,raw_attention,attention_rollout,saliency,grad_x_input,integrated_gradients"
STEPS = 50
LIMIT = 1.15


def main(material: Material) -> bool:
    """Prints the ratio; returns whether it is within the limit."""
    model, instances = material.load()
    lengths = [len(instance) for instance in instances]
    batches = [
        collate(model, [instances[index] for index in indices])
        for indices in pack(lengths, TOKEN_BUDGETS["cpu"], model.head_size)
    ]
    chosen = choose(METHODS, {"integrated_gradients": {"preset": "fixed", "steps": STEPS}})
    plain = plain_model(material.model)
    timing = in_turn(
        {
            "methods": lambda: attribute(model, instances, chosen),
            "passes": _bare(plain, batches),
        }
    )
    ratio = timing.ratio("methods", to="passes")
    mean = sum(lengths) / len(lengths)
    print(
        f"six methods, {len(instances)} instances of mean length {mean:.0f}, IG {STEPS}: "
        f"{timing.median('methods'):.1f} s against {timing.median('passes'):.1f} s of bare passes: "
        f"{ratio:.3f}x (limit {LIMIT}x)"
    )
    return ratio <= LIMIT


def _bare(network: torch.nn.Module, batches: list[Batch]) -> Callable[[], None]:
    def passes() -> None:
        for batch in batches:
            rows = batch.rows
            embeddings = network.get_input_embeddings()(rows.inputs["input_ids"])  # type: ignore[operator]
            with torch.no_grad():
                network(input_ids=rows.inputs["input_ids"], attention_mask=rows.attention_mask)
            for step in range(STEPS + 1):
                point = (embeddings * (step / STEPS)).requires_grad_()
                logits = network(inputs_embeds=point, attention_mask=rows.attention_mask).logits
                torch.autograd.grad(logits[:, 0].sum(), point)

    return passes
