"""Questions to a language model: one for each token that follows a prompt, and one for all of them.

What a token is compared with where the corpus doesn't say, the runner-up, only the model knows. So
each row is run once before anything is explained, which also tells how likely a token was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import TOKEN_BUDGETS, Instance, pack, put
from attribeam.transforms.inputs.continuation import Next
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.row import ModelRowError, RowError, Target
from attribeam.transforms.inputs.text.tokenised import names_of
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Read
from attribeam.transforms.recovery import halving

# Most logits of all tokens that are held at a time.
_MOST = 1 << 26
_Numbers = NDArray[np.float64]


def following(instance: Instance, target: Target) -> Iterator[Instance]:
    """An instance for each token that follows, of what comes before it, and one for all of them.

    They were not run yet (``told``).

    Args:
        instance: A prompt and all that follows it but the last token.
        target: Number of the token that is asked for, ``tokens`` for each, ``all`` for all of them
            at once; None for both.

    Raises:
        RowError: If there is no such token.
    """
    continuation = instance.continuation
    assert continuation is not None
    numbers: Sequence[int] = range(len(continuation))
    if isinstance(target, int):
        if target >= len(continuation):
            raise RowError(f"there is no token {target}: the continuation has {len(continuation)}")
        numbers = [target]
    for number in numbers if target != "all" else []:
        length = continuation.prompt + number
        yield replace(
            _start(instance, length), readout=length - 1, question=number, question_kind="next"
        )
    if target in (None, "all"):
        yield replace(instance, readout=None, question_kind="all")


def _start(instance: Instance, length: int) -> Instance:
    """The first tokens of an instance."""
    rationale, roles, sources = instance.rationale, instance.roles, instance.sources
    return replace(
        instance,
        input_ids=instance.input_ids[:length],
        segment=instance.segment[:length],
        special=instance.special[:length],
        word_ids=instance.word_ids[:length],
        char_start=instance.char_start[:length],
        char_end=instance.char_end[:length],
        tokens=instance.tokens[:length],
        rationale=None if rationale is None else rationale[:length],
        roles=None if roles is None else roles[:length],
        sources=None if sources is None else sources[:length],
    )


def told(model: Model, rows: Sequence[Sequence[Instance]]) -> list[list[Instance] | ModelRowError]:
    """Questions with what the model says of their tokens; each row is run once.

    Args:
        model: The model.
        rows: Of each row the questions about it, as ``following`` gives them.

    Returns:
        Per row its questions; or why there are none, if the model fails on it.

    Raises:
        Exception: If the device is lost.
    """
    found: list[list[Instance] | ModelRowError] = [[]] * len(rows)

    def run(part: Sequence[int]) -> list[list[Instance]]:
        return _run(model, [rows[number] for number in part])

    lengths = [max(map(len, questions)) for questions in rows]
    with borrowed(model.network), torch.no_grad():
        for batch in pack(lengths, TOKEN_BUDGETS[model.device.type], model.head_size):
            for several in _few(batch, [len(rows[n]) * model.vocabulary for n in batch]):
                for part, result in halving(run, several):
                    if isinstance(result, Exception):
                        found[part[0]] = _failed(result)
                        continue
                    for number, questions in zip(part, result, strict=True):
                        found[number] = questions
    return found


def _few(numbers: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Parts of some rows that give no more logits at a time than there is room for."""
    part: list[int] = []
    held = 0
    for number, size in zip(numbers, sizes, strict=True):
        if part and held + size > _MOST:
            yield part
            part, held = [], 0
        part.append(number)
        held += size
    yield part


def _failed(error: Exception) -> ModelRowError:
    failure = ModelRowError(f"the model failed on the row: {error}")
    failure.__cause__ = error
    return failure


def _run(model: Model, rows: Sequence[Sequence[Instance]]) -> list[list[Instance]]:
    """Questions about some rows, with what the model says."""
    every = [_tokens(questions) for questions in rows]
    asked = [question for questions in every for question in questions]
    at = np.array([question.position for question in asked])
    row = np.repeat(np.arange(len(rows)), [len(questions) for questions in every])
    read = Read(at=put(at, model.device), row=put(row, model.device))
    inputs = [max(questions, key=len) for questions in every]
    given = inputs_of(model).rows(model, inputs)
    logits = model.run(replace(given, read=read, outputs=None))[0]
    if not torch.isfinite(logits).all():
        raise ArithmeticError("the model's logits are not finite")
    several = iter(_told(model, asked, logits))
    found = [[next(several) for _ in questions] for questions in every]
    return [_with_sum(*pair) for pair in zip(rows, found, strict=True)]


def _tokens(questions: Sequence[Instance]) -> Sequence[Instance]:
    """The questions about each token, though all of them at once may be all that is asked for."""
    if not questions[-1].of_all:
        return questions
    return questions[:-1] or list(following(questions[-1], "tokens"))


def _with_sum(questions: Sequence[Instance], tokens: list[Instance]) -> list[Instance]:
    """The questions of a row, of what the model says of each token."""
    if not questions[-1].of_all:
        return tokens
    log_prob = sum(one.next.log_prob for one in tokens if one.next is not None)
    return [*tokens[: len(questions) - 1], replace(questions[-1], log_prob=log_prob)]


def _told(model: Model, asked: Sequence[Instance], logits: torch.Tensor) -> Iterator[Instance]:
    """Questions with what logits, [Q, V], say of their tokens."""
    tokens = torch.tensor([_token(question) for question in asked], device=logits.device)
    own = logits.gather(1, tokens[:, None])
    log_probs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
    runners = logits.scatter(1, tokens[:, None], -torch.inf).argmax(-1)
    foils = [_foil(question) for question in asked]
    pairs = zip(runners.tolist(), foils, strict=True)
    shown = [runner_up if foil is None else foil for runner_up, foil in pairs]
    against = torch.tensor(shown, device=logits.device)
    columns = (
        own[:, 0],
        logits.gather(1, against[:, None])[:, 0],
        log_probs.gather(1, tokens[:, None])[:, 0],
        torch.special.entr(log_probs.exp()).sum(-1),
        (logits > own).sum(-1) + 1,
    )
    numbers: _Numbers = torch.stack([c.double() for c in columns], 1).cpu().numpy()
    for question, of, runner_up, foil, given in zip(
        asked, numbers, runners.tolist(), shown, foils, strict=True
    ):
        yield _with_next(model, question, of, runner_up, foil, own_foil=given is not None)


def _with_next(
    model: Model,
    question: Instance,
    numbers: _Numbers,
    runner_up: int,
    foil: int,
    *,
    own_foil: bool,
) -> Instance:
    token = _token(question)
    name, foil_name = names_of(model, [token, foil])
    logit, foil_logit, log_prob, entropy, rank = numbers.tolist()
    said = Next(
        token=token,
        name=name,
        foil=foil,
        foil_name=foil_name,
        runner_up=runner_up,
        logit=logit,
        foil_logit=foil_logit,
        log_prob=log_prob,
        entropy=entropy,
        rank=int(rank),
        ends=token in model.end_ids,
        own_foil=own_foil,
    )
    return replace(question, next=said, asked=(token, foil), asked_names=(name, foil_name))


def _token(question: Instance) -> int:
    """The token that is asked for."""
    assert question.continuation is not None
    return int(question.continuation.ids[len(question)])


def _foil(question: Instance) -> int | None:
    """What the corpus compares it with, if it does."""
    assert question.continuation is not None and question.question is not None
    return question.continuation.foils[question.question]
