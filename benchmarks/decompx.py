"""What DecompX costs with biases apart, against plain forward and backward passes.

The plain passes are those of a plain transformers model that gives its attention away, with frozen
weights: a forward, and a forward and backward with respect to the embeddings. The difference of
the two is a backward pass.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from attribeam.transforms import Row, attribute, choose, encode, load_model
from benchmarks.material import plain_model, stand_in
from benchmarks.timing import in_turn

INSTANCES, LENGTH = 2, 64
BACKWARDS = 2


def main() -> bool:
    """Prints the cost; returns whether it is at most a forward and two backward passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = stand_in(Path(name), layers=12, hidden=768, heads=12)
        model = load_model(folder)
        plain = plain_model(folder, attention="eager")
    ids = np.random.default_rng(0).integers(10, 100, (INSTANCES, LENGTH)).tolist()
    instances = encode(model, [Row(f"row-{at}", input_ids=row) for at, row in enumerate(ids)])
    chosen = choose("decompx")

    def passes(backward: bool) -> None:
        embedded = plain.get_input_embeddings()(torch.tensor(ids)).requires_grad_(backward)
        logits = plain(inputs_embeds=embedded, output_attentions=True).logits
        if backward:
            torch.autograd.grad(logits[:, 0].sum(), embedded)

    timing = in_turn(
        {
            "decompx": lambda: attribute(model, instances, chosen, target=0),
            "forward": lambda: passes(backward=False),
            "both": lambda: passes(backward=True),
        }
    )
    forward, both = timing.median("forward"), timing.median("both")
    limit = forward + BACKWARDS * (both - forward)
    print(
        f"DecompX of one class, BERT-base, {INSTANCES} x {LENGTH} tokens: "
        f"{timing.median('decompx'):.2f} s against {forward:.2f} s for a forward pass "
        f"({timing.ratio('decompx', to='forward'):.2f}x) and {both:.2f} s for forward and backward "
        f"({timing.ratio('decompx', to='both'):.2f}x); limit {limit:.2f} s"
    )
    return timing.median("decompx") <= limit
