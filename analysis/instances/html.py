"""Instances as HTML for notebooks: a piece of a page without scripts and style sheets.

Colours are set on the words themselves, so that a notebook shows them wherever it is opened. They
are seen through, over whatever background the page has.
"""

import base64
from collections.abc import Iterator, Sequence
from html import escape

import duckdb

from attribeam.analysis.instances.continued import continuation_html, groups
from attribeam.analysis.instances.loading import Scored, Shown
from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.pictures.drawing import INK
from attribeam.analysis.pictures.overlays import OVERLAID, drawn

# Blue, orange and green that colour-blind people tell apart (after Okabe and Ito 2008). The page of
# a notebook may be light or dark: words are readable at AA over these on both.
_POSITIVE, _NEGATIVE, _UNSIGNED = "0,125,205", "190,95,0", "0,138,105"
_MOST = 0.6  # How much of the page the strongest word hides.
_LEAST = 0.02
_SIDE = 160  # Pixels of a picture in the page.


def instances_html(connection: duckdb.DuckDBPyConnection, shown: Sequence[Shown]) -> str:
    """Instances, each with a line or a map for each method.

    What is asked of all that follows one prompt is a map of T_out x T_in for each method.
    """
    maps = _maps(connection, shown)
    cards = "".join(
        continuation_html(group, _colour, _MOST) if len(group) > 1 else _card(group[0], maps)
        for group in groups(shown)
    )
    return (
        f'<div style="font:14px/1.6 system-ui,sans-serif;max-width:72em">{_legend(shown)}{cards}'
        "</div>"
    )


def _legend(shown: Sequence[Shown]) -> str:
    """What colours mean, of those that there are."""
    signs = {method.signed for each in shown for method in each.methods}
    positive, negative, unsigned = _POSITIVE, _NEGATIVE, _UNSIGNED
    if any(each.row["image"] is not None for each in shown):
        positive, negative, unsigned = (
            ",".join(map(str, colour)) for colour in (INK.positive, INK.negative, INK.unsigned)
        )
    says = []
    if True in signs:
        says += [(positive, "for"), (negative, "against the class")]
    if False in signs:
        says.append((unsigned, "how much it matters (no sign)"))
    marks = " ".join(
        f'<span style="background:rgba({colour},{_MOST});padding:0 .4em;border-radius:3px">'
        f"{what}</span>"
        for colour, what in says
    )
    return f'<div style="font-size:12px">{marks}</div>' if says else ""


def _card(each: Shown, maps: dict[tuple[str, str], bytes]) -> str:
    head = " · ".join(escape(part) for part in each.says)
    top = (
        f'<div style="margin-top:.7em"><b>{escape(each.instance_id)}</b> '
        f'<span style="opacity:.75">{head}</span></div>'
    )
    if each.row["image"] is not None:
        return top + _pictures(each, maps)
    lines = "".join(_line(each, method) for method in each.methods)
    return f"{top}{lines or _sentence(each, None)}"


def _line(each: Shown, method: Scored) -> str:
    """A method's name, and the sentence in its colours."""
    return (
        '<div style="display:flex;gap:.8em;align-items:baseline;margin:1px 0">'
        '<span style="flex:0 0 13em;text-align:right;opacity:.75;overflow-wrap:anywhere">'
        f"{escape(method.method)}</span>{_sentence(each, method)}</div>"
    )


def _sentence(each: Shown, method: Scored | None) -> str:
    if method is not None and method.scores is None:
        return "<i>no scores</i>"
    return f'<span style="overflow-wrap:anywhere">{"".join(_words(each, method))}</span>'


def _words(each: Shown, method: Scored | None) -> Iterator[str]:
    for at, piece in enumerate(each.pieces):
        space = " " if at and not piece.glued else ""
        style, title = [], ""
        if method is not None and method.scores is not None:
            strength = method.strengths[at]
            title = f' title="{escape(piece.text)}: {method.scores[at]:.4g}"'
            if abs(strength) > _LEAST:
                style.append(
                    f"background:rgba({_colour(method, strength)},{_MOST * abs(strength):.2f})"
                )
        if piece.special:
            style.append("opacity:.5;font-size:.8em")
        if piece.rationale:
            style.append("text-decoration:underline 2px;text-underline-offset:3px")
        style.append("border-radius:3px")
        yield f'{space}<span style="{";".join(style)}"{title}>{escape(piece.text)}</span>'


def _colour(method: Scored, strength: float) -> str:
    if not method.signed:
        return _UNSIGNED
    return _POSITIVE if strength > 0 else _NEGATIVE


def _maps(
    connection: duckdb.DuckDBPyConnection, shown: Sequence[Shown]
) -> dict[tuple[str, str], bytes]:
    """The overlay of each picture and method."""
    ids = [each.instance_id for each in shown if each.row["image"] is not None]
    if not ids:
        return {}
    rows = dict_rows(
        connection,
        f"from ({OVERLAID}) where list_contains($ids, instance_id)",
        {"ids": ids},
    )
    return {(row["instance_id"], row["method"]): drawn(row) for row in rows}


def _pictures(each: Shown, maps: dict[tuple[str, str], bytes]) -> str:
    """The picture as the model saw it, and each method's map over it."""
    files = {"picture": each.row["image"]["bytes"]}
    for method in each.methods:
        if (file := maps.get((each.instance_id, method.method))) is not None:
            files[method.method] = file
    lacking = [method.method for method in each.methods if method.method not in files]
    drawings = "".join(_figure(name, file) for name, file in files.items())
    says = f"<i>no scores: {escape(', '.join(lacking))}</i>" if lacking else ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:.7em;margin:.3em 0">{drawings}</div>{says}'


def _figure(name: str, file: bytes) -> str:
    source = base64.b64encode(file).decode()
    return (
        f'<figure style="margin:0;width:{_SIDE}px">'
        f'<img src="data:image/png;base64,{source}" alt="{escape(name)}" width="{_SIDE}" '
        'style="image-rendering:pixelated;display:block">'
        f'<figcaption style="font-size:12px;opacity:.75;overflow-wrap:anywhere">{escape(name)}'
        "</figcaption></figure>"
    )
