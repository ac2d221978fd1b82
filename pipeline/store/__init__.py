"""Files of a run, wherever they are: written whole, locked, checked for damage."""
