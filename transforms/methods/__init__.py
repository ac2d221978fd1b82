"""Attribution methods, one file per family; each is a function and its row in the registry."""
