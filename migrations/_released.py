"""What a release has fixed: its migrations, by their digests, and the schema of its tag."""

import hashlib
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
#: As `sha256sum` writes them; empty before the first release.
DIGESTS: Final = "migrations/released.sha256"
SCHEMA: Final = "schema.released.graphql"


def released(root: Path = ROOT) -> dict[str, str]:
    """Return the digests of the migrations that have been released, by their names."""
    lines = (root / DIGESTS).read_text().splitlines()
    return {Path(file).stem: digest for digest, file in (line.split() for line in lines)}


def release(root: Path = ROOT) -> None:
    """Write down the migrations and the schema as they are: what is in the next tag."""
    digests = _digests(root)
    (root / DIGESTS).write_text("".join(f"{digest}  {name}.py\n" for name, digest in digests.items()))
    (root / SCHEMA).write_bytes((root / "schema.graphql").read_bytes())


def changed(root: Path = ROOT) -> list[str]:
    """Return a sentence for each thing that a release has fixed and that isn't as it was."""
    known, found = released(root), _digests(root)
    said = [
        f"migrations/{name}.py has been released and stays as it is: put it back, and say what is new in a migration of "
        "its own (make migration name=…)."
        for name, digest in known.items()
        if found.get(name) != digest
    ]
    newest = max(known, default="")
    said += [
        f"migrations/{name}.py comes before {newest}, which has been released: give it a higher number."
        for name in found.keys() - known.keys()
        if name < newest
    ]
    return said + _untagged(root)


def _digests(root: Path) -> Mapping[str, str]:
    paths = sorted((root / "migrations").glob("[0-9]*.py"))
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _untagged(root: Path) -> list[str]:
    """Return what differs from the tag of this version. Nothing is said where git or the tag isn't there."""
    tag = "v" + tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    said = []
    for file, fixed in (("schema.graphql", SCHEMA), (DIGESTS, DIGESTS)):
        command = ["git", "-C", str(root), "show", f"refs/tags/{tag}:./{file}"]
        try:
            tagged = subprocess.run(command, capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        if (root / fixed).read_bytes() != tagged:
            said.append(f"Only a release changes {fixed}: git show {tag}:{file} > {fixed}")
    return said
