"""Reading nodes again. Without this a kind of id could be handed out that `node` doesn't know."""

from typing import get_args

from app import ids, schema
from app.api.node import REFETCHES


def test_every_kind_of_id_can_be_read_again() -> None:
    assert schema.schema is not None
    assert sorted(REFETCHES) == sorted(get_args(ids.Kind))
