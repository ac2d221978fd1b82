"""Which column of a corpus plays which role: as the user says, or else by name and kind."""

from collections.abc import Collection, Mapping, Sequence

from attribeam.pipeline.corpus.fields import find, guess, holds
from attribeam.pipeline.corpus.picture_folder import LABEL_NAMES
from attribeam.pipeline.corpus.sources import Source
from attribeam.schemas import UsageError
from attribeam.transforms import Model
from attribeam.transforms.inputs.images.kind import NO_PROCESSOR

# The names that columns go by in the data sets people have, most telling first.
GUESSED: dict[str, tuple[str, ...]] = {
    "text": (
        *("text", "premise", "sentence1", "question1", "question", "sentence", "content"),
        *("review", "document", "query", "tweet", "comment", "body", "caption"),
    ),
    "label": LABEL_NAMES,
    "id": ("id", "instance_id", "idx", "guid", "uid"),
    "rationale": ("rationale", "rationales"),
    "rationale_pair": ("rationale_pair",),
    "roles": ("roles",),
    "subset": ("subset", "subtask"),
    "good": ("good",),
    "bad": ("bad",),
    "continuation": ("continuation", "completion", "response", "answer"),
    "continuation_ids": ("continuation_ids",),
    "foil": ("foil",),
    "foil_ids": ("foil_ids",),
    "messages": ("messages", "conversation", "conversations"),
    "segments": ("segments",),
    "input_ids": ("input_ids",),
    "token_type_ids": ("token_type_ids",),
    "attention_mask": ("attention_mask",),
    "special_tokens_mask": ("special_tokens_mask",),
    "pixel_values": ("pixel_values",),
    "image": ("image", "img", "picture", "photo", "file_name", "image_path", "image_file"),
    "mask": ("mask", "masks", "segmentation", "mask_file_name", "mask_path", "mask_file"),
    "mask_label": ("mask_label", "mask_labels"),
    "other_mask": ("other_mask", "other_masks", "other_mask_file_name"),
    "other_label": ("other_label", "other_labels"),
}
# Roles of what rows are made of, by the kind of input that a model takes.
_OF_TEXT = ("text", "pair", "input_ids", "token_type_ids", "attention_mask", "special_tokens_mask")
_MASKS = ("mask", "other_mask")
_OF_IMAGES = ("image", "pixel_values", *_MASKS, "mask_label", "other_label")
# Roles of what is said of words of texts.
_OF_WORDS = ("rationale", "rationale_pair", "roles")
# Roles of what follows a prompt, by what may be ids in its place.
_FOLLOWING = {"continuation": "continuation_ids", "foil": "foil_ids"}
_OF_PROMPTS = (*_FOLLOWING, *_FOLLOWING.values(), "messages", "segments")
# What a prompt is called, before all that texts are.
_PROMPTS = ("prompt", "instruction")
# What nothing plays where pictures are compared with texts: things in them have no classes.
_NOT_OF_PAIRS = (
    *(*_OF_WORDS, "token_type_ids"),
    *("mask_label", "other_mask", "other_label"),
)
_PAIRS = {
    "text": ("text_pair", "text2"),
    "premise": ("hypothesis",),
    "sentence1": ("sentence2",),
    "question1": ("question2",),
    "question": ("sentence", "context", "passage"),
    "sentence": ("sentence_pair", "text_pair"),
}
ROLES = (
    *("text", "pair", "label", "id", *_OF_WORDS, "subset", "good", "bad"),
    *("continuation", "foil", "messages", "segments"),
    *("image", "mask", "mask_label", "other_mask", "other_label"),
)

# Kinds of values (``fields.Field``) that a role can be played with.
_TEXTS = {"text", "bytes", "list of text", "list of bytes"}
_NUMBERS = {"text", "bytes", "list of integer", "list of number", "list of boolean"}
_SCALARS = {"text", "bytes", "integer", "number", "boolean"}
_FILES = {kind for one in ("bytes", "text", "object") for kind in (one, f"list of {one}")}
_FITTING = {
    "text": _TEXTS,
    "pair": _TEXTS,
    "label": _SCALARS,
    "id": {*_SCALARS, "time", "object", "other"},
    "rationale": _NUMBERS,
    "rationale_pair": _NUMBERS,
    "roles": _TEXTS,
    "subset": {*_SCALARS, "time"},
    "good": {"text", "bytes", "integer"},
    "bad": {"text", "bytes", "integer"},
    "continuation": {"text", "bytes"},
    "continuation_ids": _NUMBERS,
    "foil": {"text", "bytes"},
    "foil_ids": _NUMBERS,
    "messages": {"list of object"},
    "segments": {"list of object"},
    "input_ids": _NUMBERS,
    "token_type_ids": _NUMBERS,
    "attention_mask": _NUMBERS,
    "special_tokens_mask": _NUMBERS,
    "pixel_values": {"list of number", "list of integer"},
    "image": {"bytes", "object", "text"},
    "mask": _FILES,
    "mask_label": {*_SCALARS, *(f"list of {kind}" for kind in _SCALARS)},
    "other_mask": _FILES,
    "other_label": {*_SCALARS, *(f"list of {kind}" for kind in _SCALARS)},
}
_UNNAMED = (None, "none")
# Without these a row has no instance, or another one.
_NEEDED = (*_OF_TEXT, *_OF_IMAGES, "good", "bad", *_OF_PROMPTS)


def choose_columns(source: Source, given: Mapping[str, str | None], model: Model) -> dict[str, str]:
    """Decides which column of a source plays which role.

    Args:
        source: The source.
        given: Columns named by the user by role (``ROLES``); ``none`` for no column.
        model: The model, which says whether words to contrast and a tokenizer are there.

    Returns:
        Column by role, for the roles that are played.

    Raises:
        UsageError: If a named column isn't there or can't play its role, a needed role has no
            column, or a file lacks a column that is needed.
    """
    unasked = {
        "masked_lm": ("label", *_OF_PROMPTS),
        "classification": ("good", "bad", *_OF_PROMPTS),
        "causal_lm": ("label", "good", "bad", "rationale_pair"),
    }.get(model.task, ("label", "good", "bad", *_OF_PROMPTS))
    of_prompts = model.task == "causal_lm"
    if model.beside is not None:
        unasked = (*unasked, *_NOT_OF_PAIRS)
        _check_none(given, *_NOT_OF_PAIRS, "pair")
    elif model.modality == "images":
        of_texts = (*_OF_TEXT, *_OF_WORDS)
        unasked = (*unasked, *of_texts)
        if wrong := [role for role in of_texts if given.get(role) not in _UNNAMED]:
            raise UsageError(
                f"{_flag(wrong[0])} {given[wrong[0]]}: the model is of pictures, which have no "
                f"{wrong[0]}"
            )
    else:
        unasked = (*unasked, *_OF_IMAGES)
    columns: dict[str, str] = {}
    for role, guesses in GUESSED.items():
        names = (*_PROMPTS, *guesses) if of_prompts and role == "text" else guesses
        found = _column(source, role, given.get(role), () if role in unasked else names)
        if found:
            columns[role] = found
    if "text" in columns and model.beside is None and not of_prompts:
        pairs = _PAIRS.get(columns["text"].casefold(), ())
        pair = _column(source, "pair", given.get("pair"), pairs)
        if pair:
            columns["pair"] = pair
    columns = _with_pair(source, _checked(source, columns, given, model), given)
    if source.split_column is not None:
        columns["split"] = source.split_column
    _check_parts(source, columns)
    return columns


def _check_none(given: Mapping[str, str | None], *roles: str) -> None:
    """Checks that no column is named for roles that nothing plays in a pair."""
    for role in roles:
        if given.get(role) not in _UNNAMED:
            raise UsageError(
                f"{_flag(role)} {given[role]}: the model is of pairs of a picture and a text, "
                f"which have no {role}"
            )


def _with_pair(
    source: Source, columns: dict[str, str], given: Mapping[str, str | None]
) -> dict[str, str]:
    """The columns; a rationale of second texts is left out where there are none.

    Raises:
        UsageError: If it was named.
    """
    if "pair" in columns or "rationale_pair" not in columns:
        return columns
    if given.get("rationale_pair") is not None:
        raise UsageError(
            f"{_flag('rationale_pair')} {given['rationale_pair']}: it is of the second texts of "
            f"pairs, and no column of {source.name} is read as these; its columns are "
            f"{listed(source)}: name one with {_flag('pair')}"
        )
    return {role: name for role, name in columns.items() if role != "rationale_pair"}


def _column(source: Source, role: str, given: str | None, guesses: Collection[str]) -> str | None:
    if given == "none":
        return None
    if given is None:
        alike = [name for name in source.columns if name.casefold() in guesses]
        fitting = [name for name in alike if _fits(source, role, name)]
        return guess(source.name, role, fitting, guesses)
    try:
        kinds = source.field(given).kinds
    except KeyError:
        raise UsageError(
            f"{source.name} has no column {given!r} ({_flag(role)}); its columns are "
            f"{listed(source)}"
        ) from None
    if not _fits(source, role, given):
        raise UsageError(
            f"the column {given!r} of {source.name} holds {holds(kinds)}, which can't be the "
            f"{role} ({_flag(role)}); its columns are {listed(source)}"
        )
    return given


def _flag(role: str) -> str:
    """The option that names a role's column."""
    return f"--{role.replace('_', '-')}-column"


def _fits(source: Source, role: str, name: str) -> bool:
    kinds = source.field(name).kinds - {"nothing", "list of nothing"}
    if not kinds:
        # Nothing is known of it, or it is empty; then it is of no use as the text.
        return role != "text" or not source.field(name).kinds
    return not kinds.isdisjoint(_FITTING[role])


def _no_text(source: Source) -> str:
    if not source.columns:
        return f"{source.name} is empty: it has no columns"
    ids = any("list of integer" in source.field(name).kinds for name in source.columns)
    of_ids = ", or call the one that holds ids of tokens input_ids" if ids else ""
    return (
        f"{source.name} has no text column that could be guessed; its columns are "
        f"{listed(source)}: name one with --text-column{of_ids}"
    )


# Names that a sentence lists.
_MOST = 30


def some(names: Sequence[str]) -> str:
    """Names for a sentence, not too many."""
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def listed(source: Source) -> str:
    """The columns of a source for a message, with what those hold that can't be a text."""
    names = []
    for name in source.columns:
        field = source.field(name)
        if field.inner:
            names.append(f"{name} ({some([f'{name}.{inner}' for inner in field.inner])})")
        elif _fits(source, "text", name) or (
            _fits(source, "label", name) and name.casefold() not in GUESSED["text"]
        ):
            names.append(name)
        else:
            names.append(f"{name} ({holds(field.kinds)})")
    return some(names) or "none that could be read"


def _checked(
    source: Source, columns: dict[str, str], given: Mapping[str, str | None], model: Model
) -> dict[str, str]:
    if model.beside is not None:
        found = _checked_images(source, columns, given, model)
        pictures = {role: name for role, name in found.items() if role in _OF_IMAGES}
        others = {role: name for role, name in columns.items() if role not in _OF_IMAGES}
        return {**pictures, **_checked(source, others, given, model.beside)}
    if model.modality == "images":
        return _checked_images(source, columns, given, model)
    # A text that was named wins over ids that happen to be there, and so does one that can be read.
    of_ids = ("input_ids", "token_type_ids", "attention_mask", "special_tokens_mask")
    named = given.get("text") not in (None, "none")
    if "input_ids" not in columns or named or ("text" in columns and model.tokenizer):
        columns = {k: v for k, v in columns.items() if k not in of_ids}
    if "input_ids" in columns:
        of_texts = ("text", "pair", *_OF_WORDS)
        columns = {k: v for k, v in columns.items() if k not in of_texts}
    elif "text" not in columns and "messages" not in columns:
        also = "" if model.task != "similarity" else ", or give texts as classes with --prompts"
        raise UsageError(_no_text(source) + also)
    elif model.tokenizer is None:
        raise UsageError(f"{model.no_tokenizer}; its columns are {listed(source)}")
    if model.task == "masked_lm":
        for role in ("good", "bad"):
            if role not in columns:
                raise UsageError(
                    f"a masked LM is explained by the contrast of two words, but {source.name} has "
                    f"no column {role!r}; its columns are {listed(source)}: name one with "
                    f"--{role}-column"
                )
        return {k: v for k, v in columns.items() if k != "label"}
    if "label" in columns and model.task != "classification":
        raise UsageError(
            f"rows of a {model.task} model have no class that a label could be: leave out "
            "--label-column"
        )
    if model.task == "causal_lm":
        return _checked_prompts(columns, given, model)
    _check_following(columns, model)
    return {k: v for k, v in columns.items() if k not in ("good", "bad")}


def _checked_prompts(
    columns: dict[str, str], given: Mapping[str, str | None], model: Model
) -> dict[str, str]:
    """The columns of a language model's corpus: of what follows, texts or ids, not both."""
    if given.get("pair") not in _UNNAMED:
        raise UsageError(
            f"--pair-column {given['pair']}: a language model has one prompt; what follows it is "
            "named with --continuation-column"
        )
    if given.get("rationale_pair") not in _UNNAMED:
        raise UsageError(
            f"{_flag('rationale_pair')} {given['rationale_pair']}: a language model has one "
            f"prompt, whose words are marked by {_flag('rationale')}"
        )
    columns = {k: v for k, v in columns.items() if k not in ("pair", "good", "bad")}
    if "messages" in columns and ("text" in columns or "input_ids" in columns):
        # A prompt is one of these: messages, unless a text was named.
        named = given.get("text") not in _UNNAMED and given.get("messages") in _UNNAMED
        others = ("messages",) if named else ("text", "input_ids", "attention_mask")
        columns = {k: v for k, v in columns.items() if k not in others}
    for role, of_ids in _FOLLOWING.items():
        if role in columns and of_ids in columns:
            named = given.get(role) not in _UNNAMED
            drop = of_ids if named or ("text" in columns and model.tokenizer) else role
            columns = {k: v for k, v in columns.items() if k != drop}
    return columns


def _check_following(columns: Mapping[str, str], model: Model) -> None:
    """Checks that no column is named for what only follows prompts."""
    for role in _OF_PROMPTS:
        if role in columns:
            raise UsageError(
                f"{_flag(role)} {columns[role]}: a {model.task} model has no prompts that "
                "something follows"
            )


def _with_file(source: Source, columns: dict[str, str], role: str) -> dict[str, str]:
    """The columns; that of a role holds files, as bytes, by path, or as ``datasets`` has them.

    Else it is left out.
    """
    if role not in columns:
        return columns
    known = source.field(columns[role])
    for inner, kind in (("bytes", "bytes"), ("path", "text")):
        if inner in known.inner and kind in known.inner[inner].kinds:
            return {**columns, role: f"{columns[role]}.{inner}"}
    holding = {"bytes", "text"} if role == "image" else _FILES - {"object"}
    held = not holding.isdisjoint(known.kinds)
    return columns if held else {k: v for k, v in columns.items() if k != role}


def path_column(source: Source, column: str) -> str | None:
    """The column of the paths of files whose bytes another has, as ``datasets`` stores pictures."""
    name = f"{column.removesuffix('.bytes')}.path"
    try:
        known = source.field(name) if column.endswith(".bytes") else None
    except KeyError:
        return None
    return name if known is not None and "text" in known.kinds else None


def _checked_images(
    source: Source, columns: dict[str, str], given: Mapping[str, str | None], model: Model
) -> dict[str, str]:
    for role in ("image", *_MASKS):
        columns = _with_file(source, columns, role)
    by_path = "image" in columns and "bytes" not in source.field(columns["image"]).kinds
    if by_path and given.get("image") is None and "pixel_values" in columns:
        # They are what the paths were of.
        columns = {role: name for role, name in columns.items() if role != "image"}
    if "image" in columns and model.processor is not None:
        columns = {role: name for role, name in columns.items() if role != "pixel_values"}
    elif "pixel_values" in columns:
        columns = {role: name for role, name in columns.items() if role != "image"}
    elif "image" in columns:
        raise UsageError(NO_PROCESSOR)
    else:
        raise UsageError(
            f"the model is of pictures, and {source.name} has no column of their files (bytes, "
            "paths, or objects with these; --image-column), and none called pixel_values of lists "
            f"of numbers as the model takes them; its columns are {listed(source)}"
        )
    if "label" in columns and model.task != "classification":
        raise UsageError(
            f"rows of a {model.task} model have no class that a label could be: leave out "
            "--label-column"
        )
    return columns


def _check_parts(source: Source, columns: Mapping[str, str]) -> None:
    for role in _NEEDED:
        for part in source.parts:
            if role in columns and part.fields and find(part.fields, columns[role]) is None:
                raise UsageError(
                    f"{part.name} has no column {columns[role]!r}, which is the {role} in other "
                    f"files of {source.name}; its columns are {some([*part.fields])}"
                )


def said(source: Source, columns: Mapping[str, str]) -> list[str]:
    """Sentences on which column is what, what is not used, and what isn't in all files."""
    order = ("text", "pair", "image", "pixel_values", "label", "id")
    roles = [role for role in (*order, *columns) if role in columns]
    line = ", ".join(f"{role}: {columns[role]}" for role in dict.fromkeys(roles))
    used = {*columns.values()}
    unused = [
        _unused(source, name)
        for name in source.columns
        if name not in used and not any(each.startswith(f"{name}.") for each in used)
    ]
    lines = [f"{line}; not used: {some(unused)}" if unused else line]
    for role, column in columns.items():
        without = [p.name for p in source.parts if p.fields and find(p.fields, column) is None]
        if without:
            more = f" and {len(without) - 3} more" if len(without) > 3 else ""
            lines.append(f"no {role} in {', '.join(without[:3])}{more}: no column {column!r}")
    empty = [part.name for part in source.parts if not part.fields]
    if empty:
        lines.append(f"nothing in {', '.join(empty[:3])}" + ", ..." * (len(empty) > 3))
    return [*lines, *source.notes]


def _unused(source: Source, name: str) -> str:
    """A column that isn't used; with what it holds if that is why."""
    roles = [role for role, guesses in GUESSED.items() if name.casefold() in guesses]
    if any(not _fits(source, role, name) for role in roles):
        return f"{name} ({holds(source.field(name).kinds)})"
    return name or "one without a name"
