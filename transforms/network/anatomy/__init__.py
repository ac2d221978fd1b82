"""Where the parts of each supported architecture are: one row per family, read by everything else.

Methods never name a module of a model themselves; a new family is a new row.
"""

from transformers import PretrainedConfig

from attribeam.schemas import UsageError
from attribeam.transforms.network.anatomy import (
    albert,
    beit,
    bert,
    clip,
    decoders,
    dinov2,
    modernbert,
    relative,
    vit,
)
from attribeam.transforms.network.anatomy.base import HEADS, POOLINGS, Anatomy, Grid, Pooling
from attribeam.transforms.network.anatomy.closed import CLOSED, is_closed

__all__ = ["ANATOMIES", "HEADS", "POOLINGS", "Anatomy", "Grid", "Pooling", "anatomy_of"]

ANATOMIES: dict[str, Anatomy] = {
    **bert.FAMILIES,
    **albert.FAMILIES,
    **relative.FAMILIES,
    **modernbert.FAMILIES,
    **decoders.FAMILIES,
    **vit.FAMILIES,
    **dinov2.FAMILIES,
    **beit.FAMILIES,
    **clip.FAMILIES,
}

_OUTSIDE = {
    "t5": "it is an encoder and a decoder",
    "bart": "it is an encoder and a decoder",
    "deberta": "its projections are of another form than those of deberta-v2, which is supported",
    "siglip2": "its pictures are read by attention with a query of its own",
}


def anatomy_of(config: PretrainedConfig) -> Anatomy:
    """Looks up the anatomy of a model; of other classifiers of pictures it is that of closed ones.

    Raises:
        UsageError: If the architecture isn't one that attribeam knows the parts of.
    """
    if config.model_type in ANATOMIES:
        return ANATOMIES[config.model_type].of(config)
    if is_closed(config):
        return CLOSED
    known = ", ".join(sorted(ANATOMIES))
    why = _OUTSIDE.get(config.model_type)
    raise UsageError(
        f"the architecture {config.model_type!r} is not supported"
        f"{f': {why}' if why else ''}; supported are {known}"
    )
