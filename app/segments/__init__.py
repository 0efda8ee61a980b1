"""Who the members of a merchant are, in five segments: each is defined once, here."""
