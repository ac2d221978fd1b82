"""Continuations that a corpus lacks: what the model says itself, the likeliest token each time."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from attribeam.transforms.inputs.batch import TOKEN_BUDGETS, pack
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError
from attribeam.transforms.inputs.text.continued import lacks_continuation, prompt_of
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import Model
from attribeam.transforms.recovery import halving


def with_continuations(model: Model, rows: Iterable[Row], options: EncodeOptions) -> list[Row]:
    """Rows, those without a continuation with what the model says (``Row.generated``).

    Rows whose prompts can't be encoded, or are so long that nothing can follow, are as they were:
    encoding says why. So are those that the model fails on.

    Args:
        model: A language model.
        rows: The rows.
        options: How prompts become tokens, and how many may follow.

    Raises:
        Exception: If the device is lost.
    """
    found = list(rows)
    prompts: list[tuple[int, list[int]]] = []
    for number, row in enumerate(found):
        if not lacks_continuation(row):
            continue
        try:
            ids = prompt_of(model, row, options)[0].input_ids.tolist()
        except RowError:
            continue
        if len(ids) <= options.max_length:
            prompts.append((number, ids))

    def say(part: Sequence[int]) -> list[list[int]]:
        several = [prompts[at][1] for at in part]
        room = options.max_length - len(several[0]) + 1
        return greedy(model, several, min(room, options.max_new_tokens))

    for batch in _of_one_length([ids for _, ids in prompts], model):
        for part, said in halving(say, batch):
            if isinstance(said, Exception):
                continue
            for at, ids in zip(part, said, strict=True):
                number = prompts[at][0]
                found[number] = replace(found[number], continuation_ids=ids, generated=True)
    return found


def _of_one_length(prompts: Sequence[Sequence[int]], model: Model) -> Iterable[list[int]]:
    """Numbers of prompts in batches of one length, which need no padding."""
    budget = TOKEN_BUDGETS[model.device.type]
    for batch in pack([len(ids) for ids in prompts], budget, model.head_size):
        lengths = {len(prompts[number]) for number in batch}
        for length in sorted(lengths, reverse=True):
            yield [number for number in batch if len(prompts[number]) == length]


@torch.no_grad()
def greedy(model: Model, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """What a model says after prompts of one length, down to its end token.

    Args:
        model: The model.
        prompts: Their ids, [B, p].
        most: Most tokens that it may say.

    Returns:
        Ids per prompt, the end token among them if it was said.
    """
    fed, cache = torch.tensor(prompts, device=model.device), None
    first = model.anatomy.first_position(model.network.config)
    places = torch.arange(first, first + fed.shape[1], device=model.device)[None]
    ends = torch.tensor(model.end_ids, dtype=torch.long, device=model.device)
    said: list[torch.Tensor] = []
    over = torch.zeros(len(prompts), dtype=torch.bool, device=model.device)
    with borrowed(model.network), model.autocast():
        while len(said) < most and not over.all():
            given = model.network(
                input_ids=fed,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, fed = given.past_key_values, given.logits[:, -1:].argmax(-1)
            places = places[:, -1:] + 1
            said.append(fed[:, 0])
            over = over | torch.isin(fed[:, 0], ends)
    found: list[list[int]] = torch.stack(said, 1).tolist()
    return [_ended(ids, model.end_ids) for ids in found]


def _ended(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Ids down to the first end token."""
    at = next((at for at, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: at + 1]
