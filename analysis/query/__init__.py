"""Queries over a run, and their results for people and for programs."""
