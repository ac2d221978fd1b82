"""A run as an object that shows itself in notebooks."""
