"""What the tokens that follow a prompt cost to explain, in forward passes over all of them.

On a Llama of random weights, 64 tokens and 8 that follow: gradients and relevance of all 8,
occlusion of each token before them, and integrated gradients of all 8 and of all at once. A forward
pass is that of a plain transformers model over prompt and continuation, with all its logits.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from attribeam.transforms import (
    Chosen,
    EncodeOptions,
    Instance,
    Model,
    Row,
    attribute,
    choose,
    load_model,
)
from attribeam.transforms.inputs.encode import encode_rows
from benchmarks.timing import in_turn

PROMPT, FOLLOWING = 64, 8
STEPS = 20
ROUNDS = 5
# Most forward passes.
LIMITS = {
    "gradients": 8.0,
    "cp_lrp": 4.5,
    "occlusion": 32.0,
    "integrated gradients": 150.0,
    "integrated gradients of the sum": 32.0,
}


def main() -> bool:
    """Prints the ratios; returns whether they are within their limits."""
    with tempfile.TemporaryDirectory() as folder:
        _stand_in(Path(folder))
        model = load_model(folder, tokenizer=False)
        plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
        plain.eval().requires_grad_(False)
        timing = in_turn(_work(model, plain), ROUNDS)
    good = True
    for name, limit in LIMITS.items():
        cost = timing.ratio(name, to="forward")
        print(f"{name} of {FOLLOWING} tokens: {cost:.1f} forward passes (limit {limit:g})")
        good &= cost <= limit
    return good


def _stand_in(folder: Path) -> None:
    """Saves a Llama of random weights: 6 layers of a width of 384."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        intermediate_size=1024,
        vocab_size=1000,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _work(model: Model, plain: PreTrainedModel) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    ids = np.random.default_rng(0).integers(3, 1000, PROMPT + FOLLOWING)
    row = Row("row", input_ids=[1, *ids[1:PROMPT].tolist()], continuation_ids=ids[PROMPT:].tolist())
    found, _ = encode_rows(model, [row], EncodeOptions(model.max_length))
    tokens = [one for one in found if not one.of_all]
    spans = [one for one in found if one.of_all]
    path = {"integrated_gradients": {"steps": STEPS, "rule": "midpoint", "baseline": "pad"}}
    paths = choose("integrated_gradients", path)

    def forward() -> None:
        with torch.no_grad():
            plain(torch.tensor(ids)[None], use_cache=False)

    def run(instances: list[Instance], chosen: list[Chosen]) -> Callable[[], object]:
        return lambda: attribute(model, instances, chosen)

    return {
        "forward": forward,
        "gradients": run(tokens, choose("saliency,grad_x_input")),
        "cp_lrp": run(tokens, choose("cp_lrp")),
        "occlusion": run(tokens, choose("occlusion")),
        "integrated gradients": run(tokens, paths),
        "integrated gradients of the sum": run(spans, paths),
    }
