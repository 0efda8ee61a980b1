"""Trusted documents: a JSON file of GraphQL documents by their SHA-256 hashes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from app.config import Settings
from app.errors import ConfigurationError

_SUFFIXES: Final = {".graphql", ".gql"}


def sha256_of(document: str) -> str:
    """Return the SHA-256 of a document's text in UTF-8, in lower-case hexadecimal digits."""
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()


def trusted_documents(settings: Settings) -> Mapping[str, str]:
    """Return the documents of the configured manifest by their hashes; none if no manifest is configured.

    Raises ConfigurationError for a file that can't be read, or whose hashes aren't those of its documents.
    """
    path = settings.trusted_documents
    if path is None:
        if settings.trusted_documents_required:
            raise ConfigurationError("FLASH_TRUSTED_DOCUMENTS_REQUIRED needs FLASH_TRUSTED_DOCUMENTS: a manifest.")
        return {}
    try:
        manifest = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"FLASH_TRUSTED_DOCUMENTS can't be read: {error.strerror}: {path}.") from None
    except orjson.JSONDecodeError:
        raise ConfigurationError(f"FLASH_TRUSTED_DOCUMENTS is not JSON: {path}.") from None
    if not isinstance(manifest, dict) or not all(isinstance(document, str) for document in manifest.values()):
        raise ConfigurationError(f"FLASH_TRUSTED_DOCUMENTS must be an object of hashes and documents: {path}.")
    for sha256, document in manifest.items():
        if sha256 != sha256_of(document):
            raise ConfigurationError(f"FLASH_TRUSTED_DOCUMENTS: {sha256[:80]} isn't the SHA-256 of its document.")
    return manifest


def manifest_of(folder: Path) -> dict[str, str]:
    """Return the manifest of the documents in a folder, one per file, in the order of their paths.

    Raises ConfigurationError when there are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    if not files:
        raise ConfigurationError(f"There are no .graphql files in {folder}.")
    try:
        documents = [path.read_text("utf-8") for path in files]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"A document can't be read: {error}.") from None
    return {sha256_of(document): document for document in documents}
