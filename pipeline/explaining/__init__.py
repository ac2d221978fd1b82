"""A run in one call, of texts or pictures that are at hand: what notebooks begin with."""
