"""Publishing a run as a data set of the Hugging Face hub."""
