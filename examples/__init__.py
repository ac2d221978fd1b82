"""Scripts of use, the bundled corpora and models, and what makes these (``bundled``)."""
