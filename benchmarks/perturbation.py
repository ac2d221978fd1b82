"""Occlusion, LIME and kernel SHAP against captum's, at equal samples.

Captum explains one instance at a time, and one copy of it at a time unless it is told otherwise. It
is given a plain transformers model with frozen weights, only the tokens that may be removed, an
attention mask that hides the padding put in their place, and the closed form for its linear models.
The limit is for captum as it comes; what many copies at once make of it is printed as well.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from captum.attr import FeatureAblation, KernelShap, Lime

from attribeam.transforms import Instance, Model, attribute, choose
from attribeam.transforms.methods.perturbation import weighted_ridge
from benchmarks.material import Material, plain_model
from benchmarks.timing import in_turn

INSTANCES, ROUNDS = 12, 3
PARAMS: dict[str, dict[str, Any]] = {
    "occlusion": {"operation": "pad"},
    "lime": {"operation": "pad", "unit": "token", "output": "logit", "samples": 50},
    "kernel_shap": {"operation": "pad", "samples": 64},
}
AS_IT_COMES, TUNED = 1, 64  # Copies at once; from 32 on more are no quicker.
LIMIT = 1.5


def main(material: Material) -> bool:
    """Prints the ratio of each method; returns whether they reach their limit."""
    model, instances = material.load()
    instances = instances[:INSTANCES]
    plain = plain_model(material.model)
    work: dict[str, Callable[[], object]] = {}
    for name in PARAMS:
        work[name] = _ours(name, model, instances)
        for at_once in (AS_IT_COMES, TUNED):
            work[f"{name}, captum {at_once}"] = _captum(name, plain, model, instances, at_once)
    timing = in_turn(work, ROUNDS)
    good = True
    for name in PARAMS:
        default, tuned = (
            timing.ratio(f"{name}, captum {n}", to=name) for n in (AS_IT_COMES, TUNED)
        )
        good &= default >= LIMIT
        print(
            f"{name}: {timing.median(name) / len(instances):.3f} s an instance; captum's time over "
            f"ours {default:.2f}x as it comes (target {LIMIT}x), {tuned:.2f}x with {TUNED} copies "
            "at once"
        )
    return good


def _ours(name: str, model: Model, instances: Sequence[Instance]) -> Callable[[], object]:
    chosen = choose(name, {name: PARAMS[name]})
    return lambda: attribute(model, instances, chosen)


def _captum(
    name: str, network: torch.nn.Module, model: Model, instances: Sequence[Instance], at_once: int
) -> Callable[[], None]:
    def call() -> None:
        for instance in instances:
            ids = torch.tensor(instance.input_ids[None], dtype=torch.long)

            def forward(middle: torch.Tensor, ids: torch.Tensor = ids) -> torch.Tensor:
                ends = ids.expand(len(middle), -1)
                row = torch.cat([ends[:, :1], middle, ends[:, -1:]], 1)
                logits: torch.Tensor = network(
                    row, attention_mask=row.ne(model.pad_id or 0).long()
                ).logits
                return logits

            with torch.no_grad():
                target = int(forward(ids[:, 1:-1]).argmax())
            explainer, samples = _explainer(name, forward)
            explainer.attribute(
                ids[:, 1:-1],
                baselines=model.pad_id,
                target=target,
                perturbations_per_eval=at_once,
                **samples,
            )

    return call


def _explainer(name: str, forward: Callable[..., torch.Tensor]) -> tuple[Any, dict[str, int]]:
    """Captum's explainer, and how many samples it is to take."""
    if name == "occlusion":
        return FeatureAblation(forward), {}
    samples = {"n_samples": int(PARAMS[name]["samples"])}
    if name == "lime":
        return Lime(forward, _Ridge(1.0), _kernel, _neighbours), samples
    explainer = KernelShap(forward)
    explainer.interpretable_model = _Ridge(0.0)
    return explainer, samples


class _Ridge:
    """The linear model for which captum would ask scikit-learn."""

    def __init__(self, ridge: float) -> None:
        self.ridge = ridge

    def fit(self, data: Any) -> None:
        features, targets, weights = (column.double().numpy() for column in next(iter(data)))
        self.coefficients, _ = weighted_ridge(features, targets, weights, self.ridge)

    def representation(self) -> torch.Tensor:
        return torch.from_numpy(self.coefficients).float()


def _kernel(_: object, __: object, present: torch.Tensor, **more: object) -> float:
    distance = 100 * (1 - float(present.float().mean()) ** 0.5)
    return float(torch.tensor(-0.5 * (distance / 25) ** 2).exp())


def _neighbours(_: object, **more: Any) -> Iterator[torch.Tensor]:
    """The whole input, then samples without 1 to n of its n tokens."""
    count: int = more["num_interp_features"]
    yield torch.ones(1, count, dtype=torch.long)
    while True:
        size = int(torch.randint(1, count + 1, ()))
        present = torch.ones(1, count, dtype=torch.long)
        present[0, torch.randperm(count)[:size]] = 0
        yield present
