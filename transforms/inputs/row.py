"""A row of a corpus before it is encoded, and how it is to be encoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from attribeam.schemas import UsageError

Overflow = Literal["truncate", "fail", "stride"]
Words = Literal["whitespace", "tokenizer"]
Segments = Literal["auto", "sentence", "document", "none"]
# What is asked for, of models that have several outputs: the number of one, or of a language model
# each token that follows or all of them at once; None for all that there are.
Target = int | Literal["tokens", "all"] | None


@dataclass(frozen=True)
class Row:
    """A row of the corpus, before encoding.

    Either ``text``, ``input_ids``, ``image`` (a picture's file) or ``pixel_values`` is given, the
    last C * H * W numbers as the model takes them. ``mask`` is the file of a picture of where
    something is seen, or several; ``mask_label`` has the class of each, where they are not all of
    the row's. ``other_mask`` and ``other_label`` are those of other things in the picture;
    ``files`` says where all these were read from, for messages. What
    ``attention_mask`` hides of the ids is padding, and no part of the instance;
    ``special_tokens_mask`` marks [CLS], [SEP] and the like. ``good`` and ``bad`` are the correct
    and the wrong word at the [MASK], as words or as vocabulary ids. Of a language model ``text`` or
    ``input_ids`` is the prompt, ``continuation`` or ``continuation_ids`` what follows it, and
    ``foil`` or ``foil_ids`` what might have followed in its place, token for token; ``generated``
    says that the model itself has said it. ``messages`` are a prompt's parts, each with a ``role``
    and its ``content``, in place of a text; ``segments`` where parts of it are, each with a
    ``kind``, its ``start`` and its ``end``, in characters of the text or in ids. ``problem`` says
    what was wrong with the row when it was read; such a row fails with that message.
    ``corpus_row`` is its number in the corpus, from 0. ``given`` has scores that others computed
    for it, by method (``given_scores.Given``). ``rationale`` has 0 or 1 for each word of the text,
    ``rationale_pair`` for each of ``text_pair``.
    """

    instance_id: str
    text: str | None = None
    text_pair: str | None = None
    split: str | None = None
    label: int | None = None
    rationale: Sequence[int] | None = None
    rationale_pair: Sequence[int] | None = None
    roles: Sequence[str | None] | None = None
    subset: str | None = None
    input_ids: Sequence[int] | None = None
    token_type_ids: Sequence[int] | None = None
    attention_mask: Sequence[int] | None = None
    special_tokens_mask: Sequence[int] | None = None
    good: str | int | None = None
    bad: str | int | None = None
    continuation: str | None = None
    continuation_ids: Sequence[int] | None = None
    foil: str | None = None
    foil_ids: Sequence[int | None] | None = None
    generated: bool | None = None
    messages: Sequence[Mapping[str, str]] | None = None
    segments: Sequence[Mapping[str, Any]] | None = None
    pixel_values: Sequence[float] | None = None
    image: bytes | None = None
    mask: bytes | Sequence[bytes] | None = None
    mask_label: Sequence[int | None] | None = None
    other_mask: bytes | Sequence[bytes] | None = None
    other_label: Sequence[int | None] | None = None
    files: str | None = None
    problem: str | None = None
    corpus_row: int | None = None
    given: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodeOptions:
    """How texts become tokens.

    Attributes:
        max_length: Most tokens of an instance, special tokens included.
        overflow: What happens to longer texts: ``truncate`` them (``Instance.truncated`` says so),
            let them ``fail``, or make of each several overlapping windows (``stride``). A masked LM
            predicts one token, so there a window around it is all that is made.
        stride: Tokens that neighbouring windows have in common; at most half a window. None for a
            quarter of one.
        words: What a word is: a run of non-``whitespace`` characters (as rationales count them), or
            what the ``tokenizer`` splits texts into before it looks for pieces.
        need_label: Instances without a label fail (the gold class is to be explained).
        target: The label or the value that is asked for, of models that have several, or the token
            that follows a prompt; of these also ``tokens`` or ``all``. None for each of them.
        objects: The classes that a picture's masks are of are asked for, each in an instance.
        max_new_tokens: Most tokens that a language model says after prompts that nothing follows.
        segments: What the parts of a prompt are: ``auto`` for those of the row, its messages or its
            sentences, the first that there are; ``sentence``, ``document`` (blank lines part them)
            or ``none``.

    Raises:
        UsageError: If one of them is none of these.
    """

    max_length: int
    overflow: Overflow = "truncate"
    stride: int | None = None
    words: Words = "whitespace"
    need_label: bool = False
    target: Target = None
    objects: bool = False
    max_new_tokens: int = 32
    segments: Segments = "auto"

    def __post_init__(self) -> None:
        for name, kinds in (
            ("overflow", Overflow),
            ("words", Words),
            ("segments", Segments),
        ):
            if getattr(self, name) not in get_args(kinds):
                known = " or ".join(get_args(kinds))
                raise UsageError(f"{name} is {known}, not {getattr(self, name)!r}")
        if not isinstance(self.max_length, int | np.integer) or self.max_length < 1:
            raise UsageError(f"max_length is a number of tokens, not {self.max_length!r}")


class RowError(ValueError):
    """A row that can't be encoded; the message says why."""


class ModelRowError(RowError):
    """The model failed on a row while it was encoded; the cause says why.

    Where an answer is, say, only the model knows.
    """
