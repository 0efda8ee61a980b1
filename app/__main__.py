"""`python -m app` is `flash`."""

from app.cli import main

main()
