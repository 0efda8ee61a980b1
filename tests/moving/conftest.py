"""What tests of imports share."""

from pathlib import Path

import pytest

from tests.factories import Shop
from tests.moving.files import Mover


@pytest.fixture
def mover(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mover:
    """Bring files in for a new merchant."""
    return Mover(shop, tmp_path, capsys)
