"""The one exception that ends a command with a sentence; apart, so that starting costs no other import."""


class ConfigurationError(Exception):
    """The engine can't run as configured; the message is one sentence that says what to do."""
