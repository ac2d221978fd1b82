"""What makes the bundled corpora and models."""
