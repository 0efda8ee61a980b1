"""What happens to a person across the nouns: enrolling, and proving an address."""
