"""The network: loaded, looked into, and its parts by family."""
