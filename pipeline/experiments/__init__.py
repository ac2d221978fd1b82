"""What works on a finished run and a labelled corpus: pruning and attacks."""
