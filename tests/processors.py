"""The tests that compare numbers, with the arithmetic of other processors.

``make processors`` runs them under every setting of ``SETTINGS`` that a library takes for another
processor than it runs on, and without any. Whether a setting changes anything is measured: what
gives the same bits as no setting at all is ignored on this machine, which is said, and its tests
are those without it.

    python -m tests.processors [SETTING=VALUE[,SETTING=VALUE] | unset | test_FILE ...]
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from torch.nn import functional

IGNORED = "ignored here: the same bits as without it"
ROOT = Path(__file__).resolve().parent.parent
UNSET = "unset"
# MKL multiplies matrices in torch (what is not Intel's ignores its first three), OpenBLAS in numpy,
# oneDNN has some of torch's activations, and ATen all else.
SETTINGS = (
    UNSET,
    "MKL_ENABLE_INSTRUCTIONS=SSE4_2",
    "MKL_ENABLE_INSTRUCTIONS=AVX2",
    "MKL_ENABLE_INSTRUCTIONS=AVX512",
    "MKL_CBWR=COMPATIBLE",
    "ATEN_CPU_CAPABILITY=default",
    "ATEN_CPU_CAPABILITY=avx2",
    "OPENBLAS_CORETYPE=Haswell",
    "ONEDNN_MAX_CPU_ISA=SSE41",
)
# Against the authors' numbers, against definitions, and of one batch against another.
TESTS = (
    *("test_goldens", "test_methods", "test_passes", "test_attribute"),
    *("test_attention_path", "test_attattr", "test_beyond_intuition", "test_decompx", "test_hta"),
    *("test_iba", "test_norms", "test_relevance", "test_influence", "test_influence_method"),
    *("test_patterns", "test_pattern_ablation", "test_perturb", "test_perturbation_methods"),
    *("test_degradation", "test_prune", "test_attack"),
)


def fingerprints() -> dict[str, str]:
    """What some products, sums and functions come to here, to the last bit."""
    torch.set_num_threads(1)
    found: dict[str, str] = {}
    for dtype in (torch.float32, torch.float64):
        random = np.random.default_rng(0)  # Torch's own numbers would depend on the setting too.
        x, weight = (
            torch.from_numpy(random.standard_normal(shape)).to(dtype)
            for shape in ((23, 64), (48, 64))
        )
        heads = x.reshape(23, 4, 16).transpose(0, 1)
        results = {
            "linear": functional.linear(x, weight),
            "products of heads": heads @ heads.mT,
            "softmax": (10 * x).softmax(-1),
            "layer norm": functional.layer_norm(x, x.shape[1:]),
            "gelu": functional.gelu(x),
            "exp": x.exp(),
            "tanh": x.tanh(),
            "sum": x.sum(-1),
            "numpy's products": torch.from_numpy(x.numpy() @ weight.numpy().T),
        }
        for name, result in results.items():
            digest = blake2b(np.ascontiguousarray(result.numpy()).tobytes(), digest_size=8)
            found[f"{name} in {str(dtype).removeprefix('torch.')}"] = digest.hexdigest()
    return found


def measured(environment: Mapping[str, str]) -> dict[str, str]:
    """The fingerprints of a process in an environment."""
    code = "import json, tests.processors as p; print(json.dumps(p.fingerprints()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def environment_of(setting: str, names: set[str]) -> dict[str, str]:
    """The environment of this process with one setting, or several at once, and no others."""
    kept = {name: value for name, value in os.environ.items() if name not in names}
    several = () if setting == UNSET else setting.split(",")
    return kept | dict(one.split("=", 1) for one in several)  # type: ignore[misc]


def changed(setting: str, names: set[str]) -> str:
    """What a setting makes of the numbers, in words."""
    if setting == UNSET:
        return "this processor's own arithmetic"
    plain, found = (measured(environment_of(one, names)) for one in (UNSET, setting))
    differing = [name for name in plain if found[name] != plain[name]]
    if not differing:
        return IGNORED
    return f"other bits in {', '.join(differing)}"


def main(words: list[str]) -> int:
    """Runs tests under settings, all unless named; returns 1 if any failed, 2 for a wrong word."""
    tests = [one for one in words if one in TESTS]
    settings = [one for one in words if one not in TESTS]
    wrong = [one for one in settings if one != UNSET and "=" not in one]
    if wrong:
        print(f"{wrong[0]} is neither {UNSET}, SETTING=VALUE nor one of TESTS", file=sys.stderr)
        return 2
    every = ",".join((*SETTINGS, *settings)).split(",")
    names = {one.split("=")[0] for one in every}
    files = [str(next((ROOT / "tests").rglob(f"{name}.py"))) for name in tests or TESTS]
    pytest = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal"]
    told, failed, done = [], False, set[str]()
    for setting in settings or SETTINGS:
        what = changed(setting, names)
        print(f"{setting}: {what}", flush=True)
        if what == IGNORED and UNSET in done:
            told.append(f"{setting}: {what}")
            continue
        done.add(setting)
        start = monotonic()
        run = subprocess.run(
            [*pytest, *files], cwd=ROOT, env=environment_of(setting, names), check=False
        )
        failed |= run.returncode != 0
        verdict = "FAILED" if run.returncode else "passed"
        told.append(f"{setting}: {verdict} in {monotonic() - start:.0f} s; {what}")
    print("\n" + "\n".join(told))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
