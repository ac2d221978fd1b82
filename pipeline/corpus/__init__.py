"""Corpora: from files of any format to the normalised copy in the run's folder."""
