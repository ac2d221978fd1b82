"""Who does the work: Beam's engines, worker processes, their devices and model."""
