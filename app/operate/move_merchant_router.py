"""The program that tells the router of a move: it is given the merchant's UUID, and `to` or, to undo it, `from`."""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from typing import Final
from uuid import UUID

from app.config import ConfigurationError

#: How long it may take to tell the router that all is as it was.
_BACK_SECONDS_MAX: Final = 30.0


class NotToldError(Exception):
    """The program failed; the message says how."""


def program(switch: str) -> list[str]:
    """Return the words of a command. Raises ConfigurationError when there is no such program."""
    try:
        command = shlex.split(switch)
    except ValueError as error:
        raise ConfigurationError(f"--switch can't be read: {error}.") from None
    if not command or shutil.which(command[0]) is None:
        raise ConfigurationError(f"--switch names no program that can be run: {switch[:60]!r}.")
    return command


async def tell(command: list[str], merchant_id: UUID, server: str) -> None:
    """Run the program that tells the router where a merchant is: `from` or `to`. Raises NotToldError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, str(merchant_id), server, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        # With whatever it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        said = output.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise NotToldError(f"--switch failed ({process.returncode}: {said[-1][:200]})")


async def tell_back(command: list[str], merchant_id: UUID) -> None:
    """Tell the router that the merchant is where it was. Raises ConfigurationError if that fails."""
    reason = f"it took longer than {_BACK_SECONDS_MAX:.0f} s"
    try:
        async with asyncio.timeout(_BACK_SECONDS_MAX):
            await tell(command, merchant_id, "from")
            return
    except NotToldError as error:
        reason = str(error)
    except TimeoutError:
        pass
    raise ConfigurationError(
        f"The merchant is served at --from, but the router couldn't be told so: {reason}. See to that first: "
        f"{shlex.join([*command, str(merchant_id), 'from'])}"
    )
