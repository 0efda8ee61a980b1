"""When the last night began: what is due every night is due for whatever was done before that."""


def night_began(hour: int) -> str:
    """Return the SQL of a row with `began`, the instant of this hour of the day (UTC) that passed last."""
    return f"SELECT date_trunc('day', now() - interval '{hour} hours', 'UTC') + interval '{hour} hours' AS began"
