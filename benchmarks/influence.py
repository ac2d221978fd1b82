"""What influence patterns cost, against plain forward passes of the points of the path.

A text of the length that templates for agreement have, with as many points as the authors take, all
of its words at both levels. Plain forward passes are those of a plain transformers model on as many
copies of the text as there are points.

The two passes over the points are the same for one word and for all. Refinement then pushes a token
for each word through each layer twice and pulls one back, about three forward passes for all words
of a text and in proportion for fewer; that much is printed, without a limit.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from attribeam.transforms import Instance, Model, load_model
from attribeam.transforms.inputs.batch import TOKEN_BUDGETS
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.passes.base import quadrature
from attribeam.transforms.passes.influence import influence_states
from attribeam.transforms.passes.patterns import refine
from benchmarks.material import plain_model, random_instance, stand_in
from benchmarks.timing import in_turn

TOKENS, POINTS = 12, 50
ROUNDS = 3
FORWARDS = 10.0


def main() -> bool:
    """Prints the cost; returns whether it is at most that of so many forward passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = stand_in(Path(name), layers=12, hidden=768, heads=12)
        model = load_model(folder)
        plain = plain_model(folder)
    instance = random_instance(model, TOKENS)
    copies = torch.tensor(instance.input_ids[None], dtype=torch.long).repeat(POINTS, 1)

    def forward() -> None:
        with torch.no_grad():
            plain(copies)

    timing = in_turn(
        {
            "forward": forward,
            "no word": lambda: _patterns(model, instance, []),
            "one word": lambda: _patterns(model, instance, [TOKENS // 2]),
            "all words": lambda: _patterns(model, instance, range(TOKENS)),
        },
        ROUNDS,
    )
    cost = timing.ratio("all words", to="forward")
    print(
        f"influence patterns of all {TOKENS} tokens, BERT-base, {POINTS} points: "
        f"{timing.median('all words'):.2f} s against {timing.median('forward'):.2f} s for a "
        f"forward pass of the points, {cost:.1f} of them (limit {FORWARDS:.0f}); passes alone "
        f"{timing.ratio('no word', to='forward'):.1f}, with the patterns of one word "
        f"{timing.ratio('one word', to='forward'):.1f}"
    )
    return cost <= FORWARDS


def _patterns(model: Model, instance: Instance, sources: Sequence[int]) -> None:
    """Patterns of some words of a text, at both levels."""
    batch = collate(model, [instance])
    points, shares = quadrature("trapezoid", POINTS)
    for states in influence_states(
        model,
        batch.rows,
        torch.tensor([[1.0, -1.0]]),
        inputs_of(model).space(model, batch, "words", "mask"),
        points=points,
        shares=shares,
        budget=TOKEN_BUDGETS["cpu"],
    ):
        refine(states, sources)
