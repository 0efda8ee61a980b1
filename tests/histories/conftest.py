"""The judge, built once for all tests of a test worker."""

from collections.abc import Iterator

import pytest

from tests.histories.judging import Judge, NoJudgeError, judge


@pytest.fixture(scope="session")
def judging() -> Iterator[Judge]:
    """A judge; without Go histories are not judged, and the run says so."""
    try:
        with judge() as running:
            yield running
    except NoJudgeError as missing:
        pytest.skip(f"histories are NOT judged: {missing}")
