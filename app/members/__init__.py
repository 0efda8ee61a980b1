"""Members as every noun knows them, and their tokens; app/people/ makes them."""
