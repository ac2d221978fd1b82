"""Verifying a run: its files, and what must hold between its rows."""
