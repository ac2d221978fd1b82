"""What the weight of the information does to the attributions of ``iba``, layer by layer.

Not a benchmark of speed: it is what the default of ``beta`` was chosen by. Give it a fine-tuned
model and texts that nothing is evaluated on later.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from attribeam.transforms import Instance, Model, Statistics, attribute, collect
from attribeam.transforms.attribute import budget_for
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.inputs.batch import pack
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.passes.bottleneck import Bottleneck, layer_outputs, optimise
from benchmarks.material import Material

BETAS = (1e-5, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0)
STEPS, LR, COPIES, ALPHA = 10, 1.0, 10, 5.0
FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
# Texts that are done with a second seed.
FEW = 30
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a bottleneck found, an entry per instance.

    Attributes:
        nats: Information per token, each [T].
        loss: Mean cross entropy under the mask and fresh noise.
        kept: Share of noisy copies that are predicted as the whole input is.
    """

    nats: list[Floats]
    loss: Floats
    kept: Floats


def main(material: Material) -> bool:
    """Prints a row per layer and beta; there is no limit to be within."""
    model, instances = material.load()
    statistics = collect(model, instances, budget_for(model, None))
    found = attribute(model, instances, ["random"])
    targets = [p.target if p is not None else -1 for p in found.predictions]
    plain = np.mean([-np.log(p.probabilities[p.target]) for p in found.predictions if p])
    features = model.hidden_size
    print(f"{len(instances)} texts; cross entropy without a bottleneck {plain:.3f}")
    print("layer   beta  nats/feature  cross entropy  kept  area between      seeds  like 1e-5")
    few = instances[:FEW]
    # From the top down: lower layers say less and cost more.
    for layer in range(model.num_layers - 2, model.num_layers // 2 - 2, -1):
        first: list[Floats] | None = None
        for beta in BETAS:
            one = run(model, instances, targets, statistics, layer, beta, seed=0)
            other = run(model, few, targets[:FEW], statistics, layer, beta, seed=1)
            first = first or one.nats
            area = areas(model, instances, targets, one.nats)
            nats = np.mean([own.mean() for own in one.nats]) / features
            error = area.std() / len(area) ** 0.5
            print(
                f"{layer:5} {beta:6g} {nats:13.3f} {one.loss.mean():14.3f} {one.kept.mean():5.3f} "
                f"{area.mean():7.3f} +- {error:.3f} {alike(one.nats[:FEW], other.nats):6.3f} "
                f"{alike(one.nats, first):6.3f}",
                flush=True,
            )
    return True


def run(
    model: Model,
    instances: list[Instance],
    targets: list[int],
    statistics: Statistics,
    layer: int,
    beta: float,
    seed: int,
) -> Outcome:
    """Puts a bottleneck after a layer and looks at what is left."""
    budget = budget_for(model, None)
    nats: list[Floats] = [np.empty(0)] * len(instances)
    loss, kept = np.empty(len(instances)), np.empty(len(instances))
    for numbers in pack([len(i) for i in instances], budget, model.head_size):
        batch = collate(model, [instances[n] for n in numbers])
        states = layer_outputs(model, batch.rows)[layer]
        bottleneck = Bottleneck(
            model=model,
            batch=batch,
            layer=layer,
            states=states,
            mean=torch.from_numpy(statistics.mean[layer]).to(states),
            std=torch.from_numpy(statistics.std[layer]).to(states),
            targets=torch.tensor([targets[n] for n in numbers]),
            beta=beta,
            copies=COPIES,
            seed=seed,
        )
        mask = optimise(bottleneck, ALPHA, STEPS, LR, budget)
        with torch.no_grad():
            errors = bottleneck.cross_entropy(mask, bottleneck.noise(STEPS))
        values = bottleneck.capacity(mask).sum(-1).double().numpy()
        for row, number in enumerate(numbers):
            nats[number] = values[row, : len(instances[number])]
            loss[number] = float(errors[:, row].mean())
            # Right for two classes: the explained one has more than half of the probability.
            kept[number] = float((errors[:, row] < np.log(2)).double().mean())
    return Outcome(nats, loss, kept)


def areas(
    model: Model, instances: list[Instance], targets: list[int], scores: list[Floats]
) -> Floats:
    """Area between the curves of least and most relevant tokens deleted first, per instance."""
    evaluation = Evaluation(FRACTIONS, ("morf", "lerf"), ("delete",)).checked(model)
    rankings = [
        Ranking(instance, "iba", own, target)
        for instance, own, target in zip(instances, scores, targets, strict=True)
    ]
    found, _ = curves(model, rankings, evaluation, token_budget=budget_for(model, None))
    between = []
    for points in found:
        assert points is not None
        area = {}
        for order in ("morf", "lerf"):
            own = [(p.removed / p.units, p.probability) for p in points if p.order == order]
            shares, probabilities = np.array(own).T
            area[order] = float(np.trapezoid(probabilities, shares))
        between.append(area["lerf"] - area["morf"])
    return np.array(between)


def alike(ones: list[Floats], others: list[Floats]) -> float:
    """Mean rank correlation of the scores of the same instances."""
    pairs = zip(ones, others, strict=True)
    return float(np.mean([np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in pairs]))
