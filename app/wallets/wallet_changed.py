"""walletChanged: every change to the viewing member's wallet, each exactly once and in order."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import strawberry

from app.api.operations import Info, subscription
from app.coupons.types import Code
from app.merchants.types import Event
from app.points.types import PointsEntry
from app.wallets.types import Wallet
from app.wallets.wallet_feed import WalletChangeRow, WalletFeed


@strawberry.type(description="One change to a wallet, as of that change.")
class WalletChange:
    """A version of a wallet, the event that made it and what that was about."""

    version: int = strawberry.field(description="The wallet's version after it; pass the last one as `after`.")
    wallet: Wallet = strawberry.field(
        description="The wallet at this version. Its lists are read when they are asked for, as they are by then."
    )
    event: Event = strawberry.field(description="What happened.")
    code: Code | None = strawberry.field(description="The code that it happened to, in the state that it left it in.")
    entry: PointsEntry | None = strawberry.field(description="The points that came or went.")

    @classmethod
    def of(cls, row: WalletChangeRow) -> "WalletChange":
        """Return the change of a row of the feed."""
        return cls(
            version=row["event_wallet_version"] or 0,
            wallet=Wallet.of(row, as_of=row),
            event=Event.of_change(row),
            code=None if row.get("code_id") is None else Code.of(row, as_of=row),
            entry=None if row.get("entry_id") is None else PointsEntry.of(row, as_of=row),
        )


@subscription(
    description="Every change to the viewing member's wallet, each exactly once and in order. MEMBER only. "
    "Fails with VERSION_UNKNOWN for a version that the wallet doesn't have, with HISTORY_GONE for one too long ago."
)
async def wallet_changed(
    info: Info,
    after: Annotated[
        int | None,
        strawberry.argument(
            description="The last version that the caller has: what it missed since is replayed first. "
            "Without it changes from now on."
        ),
    ] = None,
) -> AsyncGenerator[WalletChange, None]:
    """Follow the wallet of the member whose token this is."""
    viewer = info.context.viewer
    if viewer.member_id is None:
        raise RuntimeError("a caller that is no member has a wallet")
    return _shown(await WalletFeed.of_process().follow(viewer.merchant_id, viewer.member_id, after))


async def _shown(changes: AsyncGenerator[WalletChangeRow, None]) -> AsyncGenerator[WalletChange, None]:
    async with aclosing(changes):
        async for row in changes:
            change = WalletChange.of(row)
            # Nothing of it is kept until the next one.
            del row
            yield change
            del change
