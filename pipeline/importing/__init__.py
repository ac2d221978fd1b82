"""Scores that others computed as a run of their own, without the model that they are of."""
