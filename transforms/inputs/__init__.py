"""What a network is given: rows of a corpus as instances, batches and copies."""
