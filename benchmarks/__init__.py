"""Measurements: what docs/figures.md says about speed and memory is printed by ``make bench``.

Every figure is a ratio of two things timed in turn in one process, or a count; absolute times are
printed for orientation only.
"""
