"""Options are declared once: what is declared is what parsers, checks and the model know."""

from typing import Any, get_args

import pytest

from attribeam.pipeline.commands.arguments import parsers
from attribeam.pipeline.options import Options, declared
from attribeam.pipeline.running.prepare import check_numbers
from attribeam.schemas import UsageError, UsageTypeError
from attribeam.transforms.inputs.row import Overflow, Segments, Words
from attribeam.transforms.network.loading import DTYPES

PLACES = {"model": "m", "corpus": "c", "output": "o"}


def test_what_an_option_may_be_is_what_there_is() -> None:
    known = {name: set(said.known) for name, (said, _) in declared().items() if said.known}
    assert known == {
        "overflow": set(get_args(Overflow)),
        "words": set(get_args(Words)),
        "segments": set(get_args(Segments)),
        "dtype": set(DTYPES),
        "pooling": {"auto", "cls", "mean"},
        "perturb_dtype": {"auto", "float32", "bfloat16"},
    }


@pytest.mark.parametrize("command", [1, 2])
def test_commands_have_all_of_them_with_their_defaults(command: int) -> None:
    given = vars(parsers()[command].parse_args([]))
    for name, (_, default) in declared().items():
        assert given[name] == default
        if name not in PLACES:
            assert getattr(Options(**PLACES), name) == default


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("limit", 0, "--limit is at least 1, not 0"),
        ("shard_size", 2.0, "shard_size is a whole number (int), and not a float: 2.0"),
        ("mask_token_id", "4", "mask_token_id is a whole number (int), and not a str: 4"),
        ("seed", 1 << 63, "--seed 9223372036854775808 is more than 64 bits hold"),
        ("workers", 10**6, "--workers is at most"),
        ("words", "letters", "--words is whitespace or tokenizer, not letters"),
        ("dtype", "half", "--dtype is one of float32, float64, bfloat16, mixed, not half"),
        ("overflow", "cut", "--overflow is one of truncate, fail, stride, not cut"),
    ],
)
def test_values_by_themselves(name: str, value: Any, says: str) -> None:
    with pytest.raises((UsageError, UsageTypeError)) as caught:
        check_numbers(Options(**PLACES, **{name: value}))
    assert str(caught.value).startswith(says)
