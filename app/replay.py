"""`flash replay`: a real retailer's campaigns, played against a running server over HTTP."""


async def play(url: str, key: str | None, households: int | None) -> int:
    """Play the campaigns."""
    raise NotImplementedError(url, key, households)
