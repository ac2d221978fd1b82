"""What GlobEnc's whole family costs, against a plain forward pass and the straightforward way.

The straightforward way forms the vector that every token sends to every other one through every
head, H x T x T x d numbers a layer, as the definitions read. Random weights of BERT-base's
geometry: neither way's cost depends on the weights.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from attribeam.transforms import Instance, Model, attribute, load_model
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.parts import Norm
from benchmarks.material import plain_model, random_instance, stand_in
from benchmarks.timing import in_turn

FAMILY = "w,w_fixed_res,w_res,norm_n,norm_n_fixed_res,norm_n_res,norm_n_resln,globenc"
ROUNDS = 3
COST_LIMIT = 1.35  # Of a plain forward pass with attention, at 128 tokens.
SPEED_LIMIT = 8.0  # Times quicker than the straightforward way, at 128 tokens.
MEMORY_LIMIT = 1 / 8  # Of the extra memory of the straightforward way, at 128 tokens.


def main() -> bool:
    """Prints the ratios; returns whether those at 128 tokens are within their limits."""
    with tempfile.TemporaryDirectory() as folder:
        stand_in(Path(folder), layers=12, hidden=768, heads=12)
        good = [_times(Path(folder), length) for length in (64, 128)]
        good += [_memory(Path(folder), 128)]
    return all(good[1:])


def _times(folder: Path, length: int) -> bool:
    timing = in_turn(_work(folder, length), ROUNDS)
    cost, slower = timing.ratio("family", to="plain"), timing.ratio("formed", to="family")
    print(
        f"{length} tokens: the family takes {timing.median('family'):.3f} s, {cost:.2f}x a plain "
        f"forward pass with attention (limit {COST_LIMIT}x at 128); forming all vectors takes "
        f"{timing.ratio('formed', to='plain'):.1f}x it, {slower:.1f}x the family "
        f"(limit {SPEED_LIMIT:.0f}x at 128)",
        flush=True,
    )
    return cost <= COST_LIMIT and slower >= SPEED_LIMIT


def _memory(folder: Path, length: int) -> bool:
    """Peak memory beyond that of a plain forward pass, each in a process of its own."""
    peaks = {}
    for name in ("plain", "family", "formed"):
        command = [sys.executable, "-m", "benchmarks.norms", name, str(folder), str(length)]
        peaks[name] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    ours, theirs = (peaks[name] - peaks["plain"] for name in ("family", "formed"))
    print(
        f"{length} tokens: {ours / 1024:.0f} MiB beyond the {peaks['plain'] / 1024:.0f} MiB of a "
        f"plain forward pass, against {theirs / 1024:.0f} MiB: {ours / theirs:.3f}x "
        f"(limit {MEMORY_LIMIT}x)"
    )
    return ours / theirs <= MEMORY_LIMIT


def _status(field: str) -> int:
    """A field of this process's status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _peak(work: Callable[[], object]) -> int:
    """By how much memory rises at most while something is done, in KiB (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak so far.
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _work(folder: Path, length: int) -> dict[str, Callable[[], object]]:
    model = load_model(folder)
    instance = random_instance(model, length)
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
    plain = plain_model(folder, attention="eager")

    def forward() -> None:
        with torch.no_grad():
            plain(ids, output_attentions=True)

    return {
        "plain": forward,
        "family": lambda: attribute(model, [instance], FAMILY),
        "formed": lambda: formed(model, instance),
    }


def formed(model: Model, instance: Instance) -> dict[str, torch.Tensor]:
    """Each layer's norms N, N_Res, N_ResLN and N_Enc, [L, T, T], from the vectors themselves.

    Those after norms that the model hasn't are lacking.
    """
    layers = [
        {name: torch.linalg.vector_norm(vectors, dim=-1) for name, vectors in layer.items()}
        for layer in formed_vectors(model, instance)
    ]
    return {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}


def formed_vectors(model: Model, instance: Instance) -> Iterator[dict[str, torch.Tensor]]:
    """By layer what each token sends to each other one, [T, T, d], by the names of the norms."""
    rows = collate(model, [instance]).rows
    with torch.no_grad():
        _, recorder = model.run(rows, watch=Watch(attention=True, layers=True, whole=True))
        layers = zip(model.layers, recorder.attention, recorder.layers, strict=True)
        for part, attention, state in layers:
            weight = part.attention.output.weight.T.unflatten(0, (attention.shape[1], -1))
            sent = part.attention.shared(state.values)[0] @ weight
            vectors = (attention[0][..., None] * sent[:, None]).sum(0)
            residual = vectors.clone()
            tokens = range(len(vectors))
            residual[tokens, tokens] += state.entered[0]
            found = {"N": vectors, "N_Res": residual}
            for name, step, entering in zip(
                ("N_ResLN", "N_Enc"), part.steps, state.sums, strict=True
            ):
                if step.join is not None:
                    residual = _through(step.join, residual, entering[0])
                    found[name] = residual
            yield found


def _through(norm: Norm, vectors: torch.Tensor, entering: torch.Tensor) -> torch.Tensor:
    """Vectors [T, T, d] through a layer norm whose sigma is that of what really enters it."""
    sigma = (entering.var(-1, correction=0) + norm.eps).sqrt()
    sent: torch.Tensor = norm.centre(vectors) * norm.weight / sigma[:, None, None]
    return sent


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(_peak(_work(Path(sys.argv[2]), int(sys.argv[3]))[sys.argv[1]]))
