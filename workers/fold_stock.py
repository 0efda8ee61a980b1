"""Keeps a pool's stock cheap to read, however many claims there were."""

import logging
from typing import Any

from app.coupons import stock

log = logging.getLogger("flash.worker")


async def fold_stock(_ctx: dict[Any, Any]) -> int:
    pools = await stock.fold_stock()
    if pools:
        log.info("folded the stock of %d pools", pools)
    return pools
