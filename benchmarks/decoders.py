"""What the tokens that follow a prompt cost to explain, in forward passes over all of them.

On a Llama of random weights, 64 tokens and 8 that follow: gradients and relevance of all 8,
occlusion of each token before them, and integrated gradients of all 8 and of all at once. On
another one, gradients and relevance of 4 parts of 96 tokens for 16 that follow. A forward pass is
that of a plain transformers model over prompt and continuation, with all its logits.
"""

import tempfile
from collections.abc import Callable, Mapping
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
from benchmarks.timing import Timing, in_turn

PROMPT, FOLLOWING = 64, 8
PARTS, LONG_PROMPT, MORE_FOLLOWING = 4, 96, 16
STEPS = 20
ROUNDS = 5
Work = dict[str, Callable[[], object]]
# Most forward passes.
LIMITS = {
    "gradients": 8.0,
    "cp_lrp": 4.5,
    "occlusion": 32.0,
    "integrated gradients": 150.0,
    "integrated gradients of the sum": 32.0,
}


# The same, of parts of prompts.
LIMITS_OF_PARTS = {"grad_x_input": 7.5, "cp_lrp": 7.5, "attnlrp": 7.5}


def main() -> bool:
    """Prints the ratios; returns whether they are within their limits."""
    asked = f"{FOLLOWING} tokens"
    good = _within(_timing(_stand_in(384, 6, 1024), _work), LIMITS, asked)
    asked = f"{MORE_FOLLOWING} tokens by {PARTS} parts of a prompt"
    return _within(_timing(_stand_in(512, 8, 1376), _of_parts), LIMITS_OF_PARTS, asked) and good


def _within(timing: Timing, limits: Mapping[str, float], asked: str) -> bool:
    good = True
    for name, limit in limits.items():
        cost = timing.ratio(name, to="forward")
        print(f"{name} of {asked}: {cost:.1f} forward passes (limit {limit:g})")
        good &= cost <= limit
    return good


def _timing(config: LlamaConfig, work: Callable[[Model, PreTrainedModel], Work]) -> Timing:
    """Times work on a Llama of random weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        model = load_model(Path(folder), tokenizer=False)
        plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    plain.eval().requires_grad_(False)
    return in_turn(work(model, plain), ROUNDS)


def _stand_in(hidden: int, heads: int, wide: int) -> LlamaConfig:
    """A Llama of 6 layers."""
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=6,
        num_attention_heads=heads,
        intermediate_size=wide,
        vocab_size=1000,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def _asked(
    model: Model, prompt: int, following: int, parts: int = 0
) -> tuple[list[int], list[Instance]]:
    """Ids of a random prompt and what follows it, and the questions about these."""
    ids = [1, *np.random.default_rng(0).integers(3, 1000, prompt + following - 1).tolist()]
    each = prompt // parts if parts else 0
    segments = [{"start": at * each, "end": (at + 1) * each} for at in range(parts)]
    row = Row(
        "row",
        input_ids=ids[:prompt],
        continuation_ids=ids[prompt:],
        segments=segments if parts else None,
    )
    return ids, encode_rows(model, [row], EncodeOptions(model.max_length))[0]


def _forward(plain: PreTrainedModel, ids: list[int]) -> Callable[[], object]:
    @torch.no_grad()
    def forward() -> None:
        plain(torch.tensor(ids)[None], use_cache=False)

    return forward


def _runs(model: Model, instances: list[Instance], chosen: list[Chosen]) -> Callable[[], object]:
    return lambda: attribute(model, instances, chosen)


def _of_parts(model: Model, plain: PreTrainedModel) -> Work:
    """What is timed of parts of a prompt."""
    ids, found = _asked(model, LONG_PROMPT, MORE_FOLLOWING, PARTS)
    tokens = [one for one in found if not one.of_all]
    parts = {"sources": "segments"}
    return {"forward": _forward(plain, ids)} | {
        name: _runs(model, tokens, choose(name, {name: parts})) for name in LIMITS_OF_PARTS
    }


def _work(model: Model, plain: PreTrainedModel) -> Work:
    """What is timed of tokens, by name."""
    ids, found = _asked(model, PROMPT, FOLLOWING)
    tokens = [one for one in found if not one.of_all]
    spans = [one for one in found if one.of_all]
    path = {"integrated_gradients": {"steps": STEPS, "rule": "midpoint", "baseline": "pad"}}
    paths = choose("integrated_gradients", path)
    return {
        "forward": _forward(plain, ids),
        "gradients": _runs(model, tokens, choose("saliency,grad_x_input")),
        "cp_lrp": _runs(model, tokens, choose("cp_lrp")),
        "occlusion": _runs(model, tokens, choose("occlusion")),
        "integrated gradients": _runs(model, tokens, paths),
        "integrated gradients of the sum": _runs(model, spans, paths),
    }
