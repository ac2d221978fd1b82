"""Whether curves are computed in bfloat16: decided once, when a run is begun, and kept to."""

from dataclasses import replace

from attribeam.pipeline.running.statistics import sample_of
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.workers.devices import computes_bfloat16
from attribeam.schemas.manifest import Manifest
from attribeam.transforms import Model, load_model
from attribeam.transforms.attribute import budget_for
from attribeam.transforms.network.halved import can_be_halved
from attribeam.transforms.precision import Difference, difference

# Instances that it is tried on.
_INSTANCES = 16


def decided(
    settings: Settings, asked: str, model: Model, old: Manifest | None, device: str
) -> tuple[Settings, str | None, dict[str, float] | None]:
    """The settings with the type that curves are computed in.

    Args:
        settings: Settings of the run, whose corpus is staged.
        asked: What was asked for: ``auto``, ``float32`` or ``bfloat16``.
        model: The model, on any device.
        old: ``run.json``, if the run goes on: what was decided for its curves holds.
        device: Where it runs; ``auto`` if that isn't known here.

    Returns:
        The settings; a sentence on what was decided, if it was here; and what was measured for it.
    """
    evaluation = settings.evaluation
    if evaluation is None or asked == "float32":
        return settings, None, None
    if asked == "bfloat16":
        return _in_bfloat16(settings), None, None
    if old is not None and old["evaluation"] is not None:
        begun = old["evaluation"].get("dtype")
        return (settings if begun is None else _in_bfloat16(settings)), None, None
    why = can_be_halved(model) and f"bfloat16 {can_be_halved(model)}"
    if why is None and not computes_bfloat16(device):
        why = "the processor has no units for bfloat16, or isn't known here"
    if why is not None:
        return settings, f"curves are in float32: {why}", None
    found = _measured(settings, model, device)
    said = (
        f"of {found.points} points on curves of {found.instances} instances {found.flips} have "
        f"another prediction in bfloat16, probabilities change by {found.change:.4f} at most, and "
        f"of no instance more than {found.swapped_of_one:.1%} of pairs are in another order"
    )
    if not found.within:
        return settings, f"curves are in float32: {said}", found.record
    return _in_bfloat16(settings), f"curves are in bfloat16: {said}", found.record


def _in_bfloat16(settings: Settings) -> Settings:
    assert settings.evaluation is not None
    return replace(settings, evaluation=replace(settings.evaluation, dtype="bfloat16"))


def _measured(settings: Settings, model: Model, device: str) -> Difference:
    """What bfloat16 changes for some of the run's instances: those whose seeded hash is lowest."""
    if model.device.type != device.split(":", maxsplit=1)[0]:
        model = load_model(settings.model, device=device, **settings.loading())
    instances = sample_of(settings, model, _INSTANCES)[:_INSTANCES]
    assert settings.evaluation is not None
    return difference(
        model,
        instances,
        settings.evaluation,
        budget=budget_for(model, settings.token_budget),
        seed=settings.seed,
    )
