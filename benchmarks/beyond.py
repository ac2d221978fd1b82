"""What Beyond Intuition and what it is compared with cost together, over the bare passes they need.

The bare passes are plain torch on a plain transformers model: one forward and backward pass with
the gradients of every layer's attention; a forward pass per step of the path, with the gradient of
the last layer's attention; and, for transformer attribution's relevance, a forward pass in float64
(its rules divide by numbers near zero). The relevance rules themselves are not among them.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from attribeam.transforms import Instance, attribute, choose, load_model
from benchmarks.material import plain_model, random_instance, stand_in
from benchmarks.timing import in_turn

METHODS = "bt_token,bt_head,generic_attribution,attention_gradcam,transformer_attribution"
STEPS = 20
ROUNDS = 3
LIMIT = 1.25


def main() -> bool:
    """Prints the ratios at 64 and 128 tokens; returns whether they are within the limit."""
    good = True
    with tempfile.TemporaryDirectory() as folder:
        stand_in(Path(folder), layers=12, hidden=768, heads=12)
        for length in (64, 128):
            good &= _ratio(Path(folder), length)
    return good


def _ratio(folder: Path, length: int) -> bool:
    model = load_model(folder)
    instance = random_instance(model, length)
    # As many points as there are bare passes.
    chosen = choose(METHODS)
    timing = in_turn(
        {
            "methods": lambda: attribute(model, [instance], chosen),
            "passes": _bare(folder, instance),
        },
        ROUNDS,
    )
    ratio = timing.ratio("methods", to="passes")
    print(
        f"{length} tokens: {METHODS.replace(',', ', ')} together take "
        f"{timing.median('methods'):.2f} s, {ratio:.2f}x their bare passes (limit {LIMIT}x)",
        flush=True,
    )
    return ratio <= LIMIT


def _bare(folder: Path, instance: Instance) -> Callable[[], None]:
    plain = plain_model(folder, attention="eager")
    double = plain_model(folder, dtype=torch.float64, attention="eager")
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
    last = plain.get_submodule(f"bert.encoder.layer.{plain.config.num_hidden_layers - 1}")
    with torch.no_grad():
        embeddings = plain.get_input_embeddings()(ids)

    def passes() -> None:
        entered = embeddings.clone().requires_grad_()
        out = plain(inputs_embeds=entered, output_attentions=True)
        torch.autograd.grad(out.logits[:, 0].sum(), out.attentions)
        for step in range(STEPS):
            with _graph_from(last):
                out = plain(inputs_embeds=embeddings * (step / STEPS), output_attentions=True)
                torch.autograd.grad(out.logits[:, 0].sum(), out.attentions[-1])
        with torch.no_grad():
            double(ids, output_attentions=True)

    return passes


@contextmanager
def _graph_from(layer: torch.nn.Module) -> Iterator[None]:
    """Lets the graph begin at what enters a layer, so that nothing below it is walked back."""
    handle = layer.register_forward_pre_hook(
        lambda _, args: (args[0].detach().requires_grad_(), *args[1:])
    )
    try:
        yield
    finally:
        handle.remove()
