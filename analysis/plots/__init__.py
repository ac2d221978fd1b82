"""Plots of a run, each a figure over one view."""
