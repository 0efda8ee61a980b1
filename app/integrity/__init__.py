"""The promises of the engine, recomputed from the rows."""
