"""The bundled corpora and models: their generators, their training, their samples."""
