"""What follows a prompt, as heat maps for notebooks: T_out x T_in, a map for each method.

A row is a token that follows, a column a token that was read before it; each row's colours are over
its own largest score, as in the report and in sentences.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby

from attribeam.analysis.instances.loading import Scored, Shown

_KINDS = ("next", "all")
# A cell is about a hundred bytes: notebooks with more than a few MB become slow.
_MOST_CELLS = 12_000
_LEAST = 0.02
_SIDE = 18  # Pixels of a cell.

Colour = Callable[[Scored, float], str]


def groups(shown: Sequence[Shown]) -> list[list[Shown]]:
    """Instances that are shown together: what follows one prompt, or an instance alone."""

    def key(pair: tuple[int, Shown]) -> tuple[str, object]:
        at, each = pair
        follows = each.row.get("question_kind") in _KINDS
        return ("row", each.row["row_id"]) if follows else ("alone", at)

    found = ([each for _, each in of] for _, of in groupby(enumerate(shown), key))
    return [sorted(of, key=_number) if len(of) > 1 else of for of in found]


def _number(each: Shown) -> tuple[bool, int]:
    """Where a question stands: all that follows comes last."""
    number = each.row["question"]
    return number is None, number or 0


def continuation_html(group: Sequence[Shown], colour: Colour, most: float) -> str:
    """What follows a prompt, with a map for each method.

    Args:
        group: What is asked of a row of the corpus, in order.
        colour: Red, green and blue of a method's score of some strength.
        most: How much of the page the strongest cell hides.
    """
    longest = max(group, key=lambda each: len(each.pieces))
    cells = len(group) * (len(longest.pieces) + 1)
    room = max(1, _MOST_CELLS // cells)
    names = [method.method for method in longest.methods]
    maps = "".join(_map(group, longest, at, colour, most) for at in range(len(names[:room])))
    says = ""
    if names[room:]:
        says = (
            f'<div style="opacity:.75">{len(names) - room} more methods '
            f"({escape(', '.join(names[room:]))}): .instances(IDS, methods=[...])</div>"
        )
    prompt = longest.row["prompt_length"]
    follows = "given by the corpus" if longest.row["given"] else "said by the model"
    cut = " · truncated" if longest.row["truncated"] else ""
    return (
        f'<div style="margin-top:.7em"><b>{escape(str(longest.row["row_id"]))}</b> '
        f'<span style="opacity:.75">{prompt} tokens of a prompt, and what follows, {follows}{cut}'
        f"</span></div>{maps}{says}"
    )


def _map(group: Sequence[Shown], longest: Shown, at: int, colour: Colour, most: float) -> str:
    name = longest.methods[at].method
    head = "".join(_heads(longest))
    rows = "".join(_row(each, longest, at, colour, most) for each in group)
    return (
        '<div style="overflow-x:auto;margin:.3em 0"><table style="border-collapse:separate;'
        f'border-spacing:1px;width:auto;font-size:12px" aria-label="{escape(name)}">'
        f'<caption style="text-align:left;opacity:.75">{escape(name)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _heads(longest: Shown) -> Iterator[str]:
    """The tokens that are read; what follows the prompt is behind a line."""
    for at, piece in enumerate(longest.pieces):
        faint = "opacity:.5;" if piece.special else ""
        yield (
            f'<th scope="col" style="{faint}{_edge(at, longest)}font-weight:normal;padding:2px 0;'
            'writing-mode:vertical-rl;text-align:left;vertical-align:bottom;white-space:nowrap">'
            f"{escape(piece.text)}</th>"
        )


def _edge(at: int, longest: Shown) -> str:
    return "border-left:1px solid;" if at == longest.row["prompt_length"] else ""


def _row(each: Shown, longest: Shown, at: int, colour: Colour, most: float) -> str:
    method = each.methods[at]
    said = _asked(each)
    probability = each.row["log_prob"]
    sure = "" if probability is None else f"log p {probability:.3g}"
    head = (
        f'<th scope="row" title="{escape(sure)}" style="text-align:right;font-weight:normal;'
        f'white-space:nowrap;padding:0 .5em">{escape(said)}</th>'
    )
    if method.scores is None:
        return f'<tr>{head}<td colspan="{len(longest.pieces)}"><i>no scores</i></td></tr>'
    cells = []
    for place, (score, strength) in enumerate(zip(method.scores, method.strengths, strict=True)):
        back = ""
        if abs(strength) > _LEAST:
            back = f"background:rgba({colour(method, strength)},{most * abs(strength):.2f});"
        text = longest.pieces[place].text
        cells.append(
            f'<td style="{back}{_edge(place, longest)}" title="{escape(said)} &larr; '
            f'{escape(text)}: {score:.4g}"></td>'
        )
    return f'<tr style="height:{_SIDE}px">{head}{"".join(cells)}</tr>'


def _asked(each: Shown) -> str:
    """What a row is of: a token that follows, perhaps against another, or all of them."""
    if each.row["question"] is None:
        return "all"
    outputs = each.row["outputs"] or [each.row["token"]]
    return " / ".join(map(_read, outputs))


def _read(token: object) -> str:
    """A token as people read it, without what tokenizers write for a blank."""
    text = str(token)
    return text[1:] or " " if text.startswith(("\u2581", "\u0120")) else text
