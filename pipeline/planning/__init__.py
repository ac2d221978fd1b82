"""What a run would take: measured on a few batches, and reckoned up."""
