"""Background jobs: thin files that call the engine and log one line."""
