"""attribeam: a corpus goes in, tables of attributions come out, SQL answers the questions."""
