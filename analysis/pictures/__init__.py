"""A run of pictures, to look at: maps laid over them."""
