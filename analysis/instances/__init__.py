"""Single instances as people look at them: coloured sentences, and maps over pictures."""
