"""Opening a run, wherever it lies: its files, its manifest, a connection with its tables."""
