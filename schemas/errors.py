"""The one error a user can mend: it names the thing and the remedy, and exits with 2."""


class UsageError(ValueError):
    """Bad usage, found before any work was done.

    The message is one or two sentences: what is wrong, named exactly, and what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """
