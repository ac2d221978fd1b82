"""Pictures: the second kind of input."""
