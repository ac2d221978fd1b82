"""Peak memory of methods on prompts of 2,000 tokens, of a language model of GPT-2's size.

Each method is run by a process of its own, on one token that follows; gradients of 64 of them too.
Attention is 192 MB then in each of 12 layers. Weights and libraries count.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from attribeam.transforms import EncodeOptions, Row, attribute, choose, load_model
from attribeam.transforms.inputs.encode import encode_rows

PROMPT, FOLLOWING = 2000, 64
LIMIT = 4.0  # GB.
METHODS = (
    *("cp_lrp", "attnlrp", "attention_rollout", "attention_gradcam", "bt_head", "bt_token"),
    *("generic_attribution", "transformer_attribution", "value_zeroing", "alti"),
)
# One after the other on a CPU, whose number has no part in the peak.
PARAMS = {name: {"steps": 2} for name in ("bt_head", "bt_token")}


def main() -> bool:
    """Prints the peaks; returns whether they are within the limit."""
    good = True
    with tempfile.TemporaryDirectory() as folder:
        _stand_in(Path(folder))
        for method in METHODS:
            good &= _told(Path(folder), method, 1)
        good &= _told(Path(folder), "grad_x_input", FOLLOWING)
    return good


def _stand_in(folder: Path) -> None:
    """Saves a GPT-2 of random weights that has positions enough."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_positions=PROMPT + FOLLOWING)).save_pretrained(folder)


def _told(folder: Path, method: str, following: int) -> bool:
    """Prints the peak of a process of its own; whether it is within the limit."""
    command = [sys.executable, "-m", "benchmarks.long_prompts", str(folder), method, str(following)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = int(done.stdout.split()[-1]) * 1024 / 1e9
    print(
        f"{method} of {following} tokens after {PROMPT}: {peak:.1f} GB (limit {LIMIT:g})",
        flush=True,
    )
    return peak <= LIMIT


def _run(folder: str, method: str, following: int) -> None:
    """Explains the tokens that follow a random prompt."""
    torch.set_num_threads(1)
    model = load_model(folder, tokenizer=False)
    ids = np.random.default_rng(0).integers(3, 1000, PROMPT + following).tolist()
    row = Row("row", input_ids=ids[:PROMPT], continuation_ids=ids[PROMPT:])
    found, _ = encode_rows(model, [row], EncodeOptions(model.max_length))
    asked = [one for one in found if not one.of_all]
    params = {name: given for name, given in PARAMS.items() if name == method}
    done = attribute(model, asked, choose(method, params))
    if done.failures:
        raise RuntimeError(done.failures[0].message)


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
