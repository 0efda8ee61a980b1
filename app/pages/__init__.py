"""The web pages, with their assets beside them: nothing is loaded from elsewhere."""

from pathlib import Path
from typing import Final

PAGES: Final = Path(__file__).parent
ASSETS: Final = PAGES / "assets"
