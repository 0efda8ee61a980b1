"""Writes erasures to the log outside the database, if there is one."""

import logging
from typing import Any

from app.config import settings
from app.people.erasure_log import write_log

log = logging.getLogger("flash.worker")


async def log_erasures(_ctx: dict[Any, Any]) -> int:
    path = settings().erasure_log
    if path is None:
        return 0
    written = await write_log(path)
    if written:
        log.info("logged %d erasures", written)
    return written
