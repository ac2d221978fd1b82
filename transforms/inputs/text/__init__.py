"""Texts, pairs of texts and rows of tokens: the first kind of input."""
