"""The page that others can cite: one table, what differs for sure, and the papers' claims."""
