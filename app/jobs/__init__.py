"""Jobs over many rows that somebody asked for: rows, which workers carry out in batches and by turns."""
