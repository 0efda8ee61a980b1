"""Records stock levels that no claim has recorded."""

import logging
from typing import Any

from app.coupons import stock_levels

log = logging.getLogger("flash.worker")


async def watch_stock(_ctx: dict[Any, Any]) -> int:
    pools = await stock_levels.check_missed()
    if pools:
        log.info("recorded the stock levels of %d pools", pools)
    return pools
