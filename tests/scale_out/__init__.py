"""`make scale-out`: an engine on two PostgreSQL servers behind the real router, in trouble and under load."""
