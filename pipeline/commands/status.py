"""How commands end, as exit statuses."""

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
