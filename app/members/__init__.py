"""Members as every noun knows them, and their tokens; app/enrolment/ makes them."""
