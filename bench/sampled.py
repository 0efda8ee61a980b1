"""`python -m bench.sampled FILE api ...`: run `flash` and, from SIGUSR1 on, count samples of its CPU by package."""

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

#: CPU seconds between two samples.
SECONDS_APART = 0.001
_PACKAGES = Path(sysconfig.get_path("purelib"))
_PYTHON = Path(sysconfig.get_path("stdlib"))
_ENGINE = Path(__file__).parents[1] / "app"
_samples: Counter[str] = Counter()


def main() -> None:
    """Run the command and write the counts at its end. C code counts for the Python code that called it."""
    file = Path(sys.argv.pop(1))
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, lambda *_: signal.setitimer(signal.ITIMER_PROF, SECONDS_APART, SECONDS_APART))
    # The server raises its signal once more when it ends, which would skip the writing.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    atexit.register(lambda: file.write_text(json.dumps(_samples)))
    flash()


def _sample(_number: int, frame: FrameType | None) -> None:
    if frame is not None:
        _samples[_package_of(frame.f_code.co_filename)] += 1


@cache
def _package_of(filename: str) -> str:
    """Return a file's package: one that is installed, `app`, a module of Python, or none for generated code."""
    path = Path(filename)
    if path.is_relative_to(_ENGINE):
        return "app"
    for root, whose in ((_PACKAGES, ""), (_PYTHON, "Python's ")):
        if path.is_relative_to(root):
            return whose + path.relative_to(root).parts[0].removesuffix(".py")
    return "made at run time"


if __name__ == "__main__":
    main()
