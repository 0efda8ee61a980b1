"""`make histories`: record histories of an engine in trouble, judge them, and say what happened.

Without --seed one is chosen and printed; it repeats the troubles and what clients choose, not how they meet.
"""

import argparse
import asyncio
import secrets
import sys
import time
from pathlib import Path

from app.stress.operations import read
from tests.histories.judging import ILLEGAL, Case, Judge, NoJudgeError, counterexample, judge, timeline
from tests.histories.run import run, tell


def main() -> int:
    """Run, or judge what was written. Returns 1 when something is wrong."""
    options = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="how long to record; the errands may take longer")
    options.add_argument("--seed", type=int, default=secrets.randbits(32))
    options.add_argument("--write", type=Path, help="a file for the histories, a line each")
    options.add_argument("--judge", type=Path, help="judge the histories of a file instead")
    asked = options.parse_args()
    try:
        with judge() as judging:
            if asked.judge is not None:
                return _judge(asked.judge, judging)
            print(f"seed {asked.seed}: --seed {asked.seed} repeats this", flush=True)
            begun = time.monotonic()
            if asked.write is None:
                return 0 if tell(asked.seed, begun, asyncio.run(run(asked.seed, asked.seconds, judging))) else 1
            with asked.write.open("w") as file:
                found = asyncio.run(run(asked.seed, asked.seconds, judging, file))
            return 0 if tell(asked.seed, begun, found) else 1
    except NoJudgeError as missing:
        print(f"!!!! Histories are NOT judged: {missing}. !!!!", file=sys.stderr)
        return 0


def _judge(file: Path, judging: Judge) -> int:
    wrong = 0
    with file.open() as lines:
        for history in read(lines):
            verdict = judging.verdict(Case(history, history.operations))
            print(f"{verdict}: {history.name}, {len(history.operations)} operations")
            if verdict == ILLEGAL:
                wrong += 1
                print(timeline(counterexample(judging, history)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
