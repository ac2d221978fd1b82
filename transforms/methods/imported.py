"""Methods that others have run: scores that were given for each row, put to the same tests."""

from typing import Any

import torch

from attribeam.transforms.inputs.given_scores import UnalignedError, aligned, given_for
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.registry import Method, Params, Scores


def imported(name: str, params: Params) -> Method:
    """The method of scores that were given under a name.

    Args:
        name: The name.
        params: What is known of the scores: ``imported``, a checksum of their file, its name
            (``source``), and whether they are ``signed``, ``additive`` and ``class_dependent``.
    """

    def compute(captured: Captured, _: Params) -> Scores:
        """Looks the scores of each instance up; those that don't fit are its errors."""
        targets = captured.targets.tolist()
        values = torch.zeros(*captured.mask.shape, dtype=torch.float64)
        deltas: dict[int, float] = {}
        errors: dict[int, Exception] = {}
        for number, instance in enumerate(captured.batch.instances):
            try:
                given = given_for(instance, name)
                if given.target is not None and given.target != targets[number]:
                    raise UnalignedError(
                        f"explains class {given.target}, and the run class {targets[number]} "
                        "(--target)"
                    )
                values[number, : len(instance)] = torch.from_numpy(aligned(instance, given))
                if given.delta is not None:
                    deltas[number] = given.delta
            except UnalignedError as error:
                errors[number] = error
        delta = None
        if facts["additive"] and len(deltas) + len(errors) == len(values):
            delta = torch.tensor([deltas.get(n, 0.0) for n in range(len(values))]).to(values)
        return Scores(values, delta, errors=errors)

    facts: dict[str, Any] = {
        fact: bool(params.get(fact)) for fact in ("signed", "additive", "class_dependent")
    }
    return Method(
        name=name,
        compute=compute,
        needs=lambda _: (),
        defaults=dict(params),
        cost="0",
        paper=f"imported from {params.get('source', 'elsewhere')}",
        equation="as given",
        kin=name,
        **facts,
    )
