"""Background jobs: thin files that load, call the engine, and log one line."""
