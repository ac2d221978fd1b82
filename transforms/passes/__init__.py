"""What is computed once for all methods that read from it."""
