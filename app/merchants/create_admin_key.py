"""Making an ADMIN key without having one; an operator's command, not part of the API."""

from typing import Final, TypedDict

from app import ids
from app.api.context import Role
from app.config import ConfigurationError
from app.merchants import api_keys
from app.storage.database import transaction
from app.storage.statements import statement

LABEL_LENGTH_MAX: Final = 100


class NameRow(TypedDict):
    """A merchant's name."""

    name: str


FIND: Final = statement(NameRow, "SELECT name FROM merchant WHERE merchant_id = :merchant_id")


async def create_admin_key(named: str, label: str) -> str:
    """Return the secret of a new ADMIN key of the merchant with this id; it can't be read again.

    Raises ConfigurationError when there is no such merchant, or for a blank or overlong label.
    """
    label = label.strip()
    if not 1 <= len(label) <= LABEL_LENGTH_MAX or not label.isprintable():
        raise ConfigurationError(f"A key's label is 1 to {LABEL_LENGTH_MAX} printable characters.")
    merchant_id = ids.decode("merchant", named)
    if merchant_id is not None:
        async with transaction(merchant_id) as tx:
            if await tx.row(FIND, merchant_id=merchant_id) is not None:
                _, secret = await api_keys.insert(tx, merchant_id, label=label, role=Role.ADMIN, actor="system")
                return secret
    raise ConfigurationError(f"There is no merchant {named}; `flash merchant list` names them.")
