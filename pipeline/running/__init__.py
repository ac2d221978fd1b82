"""A run: prepared, planned, handed to Beam, and accounted for."""
