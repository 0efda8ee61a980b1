"""`python -m bench.sampled FILE api ...`: a command of `flash` that counts whose code its CPU runs from SIGUSR1 on."""

import atexit
import json
import signal
import sys
import sysconfig
from collections import Counter
from functools import cache
from pathlib import Path
from types import FrameType

from app.cli import main as flash

#: Of CPU: a sample is taken whenever the process has used that much more of it.
SECONDS_APART = 0.001
_PACKAGES = Path(sysconfig.get_path("purelib"))
_PYTHON = Path(sysconfig.get_path("stdlib"))
_ENGINE = Path(__file__).parents[1] / "app"
_samples: Counter[str] = Counter()


def main() -> None:
    """Run the command; the counts are in the file at its end. What C code does counts for the Python that called it."""
    file = Path(sys.argv.pop(1))
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, lambda *_: signal.setitimer(signal.ITIMER_PROF, SECONDS_APART, SECONDS_APART))
    # The server raises once more what ended it, and nothing would be written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    atexit.register(lambda: file.write_text(json.dumps(_samples)))
    flash()


def _sample(_number: int, frame: FrameType | None) -> None:
    if frame is not None:
        _samples[_package_of(frame.f_code.co_filename)] += 1


@cache
def _package_of(filename: str) -> str:
    """Return whose code a file is: a package's, the engine's (app), a module's of Python itself, or no file's."""
    path = Path(filename)
    if path.is_relative_to(_ENGINE):
        return "app"
    for root, whose in ((_PACKAGES, ""), (_PYTHON, "Python's ")):
        if path.is_relative_to(root):
            return whose + path.relative_to(root).parts[0].removesuffix(".py")
    return "made at run time"


if __name__ == "__main__":
    main()
