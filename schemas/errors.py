"""The one error a user can mend, and what messages and numbers may be as long as."""

# Characters of a message that is stored, or told beside others.
MOST = 1000
# What is stored in tables, and taken by libraries, of whole numbers.
INT64 = range(-(2**63), 2**63)


class UsageError(ValueError):
    """Bad usage, found before any work was done.

    The message is one or two sentences: what is wrong, named exactly, and what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """


def cut(text: str, most: int = MOST) -> str:
    """A text of so many characters at most: of a longer one the beginning and the end.

    What an error says stands at the beginning, or, where it holds a traceback, at the end. The gap
    says how long the whole is.
    """
    if len(text) <= most:
        return text
    gap = f" [... cut: {len(text):,} characters ...] "
    end = (most - len(gap)) // 3
    return text[: most - len(gap) - end] + gap + text[-end:]


def one_line(text: str, most: int = MOST) -> str:
    """A message as it is stored: on one line, cut (``cut``), and of what UTF-8 can say."""
    plain = text.encode(errors="backslashreplace").decode()
    return cut(" ".join(plain.split()), most)


class UsageTypeError(UsageError, TypeError):
    """An argument of a kind that a function doesn't take, from Python."""
