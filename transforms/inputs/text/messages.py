"""Prompts that are made of messages, as a tokenizer's chat template puts them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tokenizers import Encoding

from attribeam.transforms.inputs.row import Row, RowError
from attribeam.transforms.inputs.text.segments import Extent
from attribeam.transforms.inputs.text.texts import whole
from attribeam.transforms.network.model import Model


def rendered(model: Model, row: Row) -> tuple[Row, list[Extent] | None]:
    """A row whose messages are a text, and where each is in it; as it is without messages.

    A last message of the assistant's is what follows, unless the row has that.

    Raises:
        RowError: If there is no tokenizer or template, or it doesn't take the messages.
    """
    if row.messages is None:
        return row, None
    messages = [dict(message) for message in row.messages]
    follows = row.continuation
    last = messages[-1] if messages else {}
    if follows is None and row.continuation_ids is None and last.get("role") == "assistant":
        follows = str(messages.pop()["content"])
    if not messages:
        raise RowError("the prompt is empty: it has no messages")
    if model.tokenizer is None:
        raise RowError(f"messages can't be put together: {model.no_tokenizer}")
    if not model.tokenizer.chat_template:
        raise RowError(
            "messages can't be put together: the model's tokenizer has no chat template; give the "
            "prompt as a text"
        )
    try:
        text = str(
            model.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        )
    except Exception as error:  # Templates are programs, and raise what they like.
        raise RowError(f"the chat template doesn't take the messages: {error}") from error
    return replace(row, text=text, continuation=follows), _extents(text, messages)


def _extents(text: str, messages: Sequence[Mapping[str, str]]) -> list[Extent]:
    """Where each message is in the text that a template makes of them."""
    found, start = [], 0
    for message in messages:
        content = str(message["content"]).strip()
        at = text.find(content, start)
        if content and at >= 0:
            start = at + len(content)
            found.append(Extent(str(message["role"]), at, start))
    return found


def encoding_of(model: Model, text: str, *, templated: bool) -> Encoding:
    """A text's tokens; one that a template has made has its special tokens in it."""
    assert model.tokenizer is not None
    if not templated:
        return whole(model.tokenizer, [text])
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    return backend.encode(text, add_special_tokens=False)
