"""Whether a network computes what its anatomy says: seen when it is loaded, on a row of tokens.

Methods compute with what an anatomy says of a network, and transformers runs the network. Where the
code of a family has moved, or a checkpoint brings code of its own, the two could part, and every
number would be wrong without a word.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.schemas.errors import one_line
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.capture import Recorder, Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Read, Rows

_TOKENS = 8
# By how much of itself each number that enters the head is moved: far more than rounding does.
_STEP = 2**-6
# Of the largest number: far more than rounding, and far less than what anything left out makes.
_LIMITS = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1}


@torch.no_grad()
def check(model: Model) -> None:
    """Replays a network's layers and head, each from what entered it, and compares.

    Each layer gets what entered it and the attention that was recorded there. The head's logits are
    compared with those of transformers' own code, and so are those of a run as it mostly is, for
    the position that is read out alone and with attention fused.

    Logits may be small by chance, as differences of large numbers, and rounding is as large as
    these: so errors of logits are compared with how far they move as well.

    Raises:
        UsageError: If what is replayed is something else than what the network gave.
    """
    if model.anatomy.closed:
        _check_closed(model)
        return
    rows = random_rows(model)
    watch = Watch(attention=True, layers=True, whole=True, outputs=True)
    logits, recorder = model.run_whole(rows), model.run(rows, watch=watch)[1]
    limit = _LIMITS[torch.bfloat16 if model.mixed else model.dtype]
    hidden = recorder.outputs[-1]
    replayed_head = _head(model, rows, hidden)
    size = max(_largest(logits), _movement(model, rows, hidden, replayed_head))
    for part, replayed, left, scale in [
        *((*layer, _largest(layer[-1])) for layer in _layers(model, recorder)),
        ("the head", replayed_head, logits, size),
        ("what is run for one position alone", model.run(rows)[0], logits, size),
    ]:
        error = _largest(replayed.double() - left.double())
        # A network that gives no numbers is told of where instances fail.
        if error > limit * max(scale, 1e-6):
            raise UsageError(
                f"{type(model.network).__name__} of transformers {transformers.__version__} "
                f"computes something else than attribeam knows of it: {part} is off by "
                f"{error:.1e}, so that scores would be wrong. Use the version of transformers that "
                "attribeam was tested with (constraints.txt), or a checkpoint without code of its "
                "own."
            )


def random_rows(model: Model) -> Rows:
    """A row of random tokens, or a picture of random pixels."""
    if (grid := model.grid) is not None:
        size = (1, grid.channels, grid.height, grid.width)
        pixels = torch.from_numpy(np.random.default_rng(0).standard_normal(size))
        mask = torch.ones(1, grid.positions, dtype=torch.int64, device=model.device)
        inputs = {"pixel_values": pixels.to(model.device, model.dtype)}
        # Whatever is read later, here it is what transformers reads.
        return Rows(inputs, mask, grid.read(model.anatomy.pooling, mask))
    length = min(_TOKENS, model.capacity)
    random = np.random.default_rng(0)
    tokens = _ended(model, random.integers(0, model.vocabulary, (1, length)))
    ids = torch.from_numpy(tokens).to(model.device)
    types = {"token_type_ids": torch.zeros_like(ids)} if model.token_types > 1 else {}
    asked = _OUTPUTS.get(model.task)
    of_words = model.task in ("masked_lm", "causal_lm")
    outputs = None if asked is None else torch.tensor(asked, device=model.device)
    return Rows(
        inputs={"input_ids": ids} | types,
        attention_mask=torch.ones_like(ids),
        read=_read(model, ids, model.readout_of(tokens[0])),
        outputs=ids[:, :2] if of_words else outputs,
    )


def _check_closed(model: Model) -> None:
    """Checks that a network without known layers takes pixels alone, each picture by itself."""
    name, rows = type(model.network).__name__, random_rows(model)
    try:
        logits, among = model.run(rows)[0], model.run(rows.repeated(2))[0]
    except Exception as why:
        told = one_line(str(why))
        raise UsageError(f"{name} can't be asked by pixel_values alone: {told}") from why
    if logits.shape != (1, count := len(model.output_names)):
        raise UsageError(
            f"{name} gives {list(logits.shape)} numbers for a picture, and it has {count} labels"
        )
    error = _largest(among.double() - logits.double())
    if error > _LIMITS[model.dtype] * max(_largest(logits), 1e-6):
        raise UsageError(
            f"what {name} says of a picture depends on the others of its batch (by {error:.1e})"
        )


def _ended(model: Model, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens, [1, T], the last of which is the first end token, of models that are read there."""
    if (end := model.anatomy.end) is None:
        return tokens
    config, largest = model.network.config, model.vocabulary - 1
    last = largest if end(config, np.array([0, largest])) == 1 else int(config.eos_token_id)
    tokens[tokens == last] = 0
    tokens[0, -1] = last
    return tokens


def _layers(model: Model, recorder: Recorder) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Of each layer its name, what it gives when replayed, and what it gave."""
    found = zip(model.layers, recorder.layers, recorder.attention, recorder.outputs, strict=True)
    for number, (layer, states, attention, left) in enumerate(found):
        with _as_run(model):
            yield f"layer {number}", layer.replay(states.entered, attention), left


def _head(model: Model, rows: Rows, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of what left the last layer, [1, T, d]."""
    with _as_run(model):
        return model.logits_of(hidden, rows)


def _movement(model: Model, rows: Rows, hidden: torch.Tensor, logits: torch.Tensor) -> float:
    """How far logits move, by what share of itself each number that enters the head moves.

    It is about the root of the sum of squares of what a linear head adds up.

    Args:
        model: The model.
        rows: The row that was run.
        hidden: What left its last layer, [1, T, d].
        logits: What the head makes of that.
    """
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1, 1], (4, *hidden.shape)))
    moves = [_head(model, rows, hidden + _STEP * own.to(hidden) * hidden) for own in signs]
    return max(_largest(moved.double() - logits.double()) for moved in moves) / _STEP


def _largest(numbers: torch.Tensor) -> float:
    """The largest size of any."""
    return float(numbers.double().abs().max())


def _read(model: Model, ids: torch.Tensor, readout: int | None) -> Read:
    """Where the prediction of a row of ids, [1, T], is read."""
    if readout is not None:
        return Read(ids.new_full((1,), readout))
    return Read(weights=torch.full_like(ids, 1 / ids.shape[1], dtype=torch.float64))


# Outputs that a row of tokens asks for.
_OUTPUTS = {"multi_label": [[-1, 0]], "regression": [[0]], "span": [[0, 1]]}


@contextmanager
def _as_run(model: Model) -> Iterator[None]:
    """For its duration what is computed is computed as in ``Model.run``."""
    with borrowed(model.network), model.autocast():
        yield
