"""docs/scaling.md, of many servers. Without these its router could be lax, or its ranges those of another day."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from app import ids
from tests.guides import blocks, run

GUIDE = "docs/scaling.md"
BOUNDARY = datetime(2027, 1, 15, tzinfo=UTC)


def _moment(merchant_id: UUID) -> float:
    """Return the time that an id begins with, in seconds."""
    return (merchant_id.int >> 80) / 1000


def test_the_router_of_the_guide_is_strict_and_knows_every_merchant_by_one_column() -> None:
    (block,) = blocks(GUIDE, "A router that is strict")
    config = tomllib.loads(block.text)
    (sharded,) = config["sharded_tables"]
    later, others, moved = sharded["mapping"]

    assert config["general"]["cross_shard_disabled"] is True
    assert [each["shard"] for each in config["databases"]] == [0, 1]
    assert (sharded["column"], sharded["data_type"]) == ("merchant_id", "uuid")
    assert [UUID(each).version for each in moved["values"]] == [7]
    assert _moment(UUID(later["start"])) == BOUNDARY.timestamp()
    assert others == {"shard": 0}


def test_the_command_of_the_guide_tells_where_a_moment_begins(tmp_path: Path) -> None:
    """The one of "Add a server"."""
    (block,) = blocks(GUIDE, "Add a server", "sh")

    assert _moment(UUID(run(block.text, tmp_path).stdout.strip())) == BOUNDARY.timestamp()
    before = datetime.now(UTC).timestamp()
    assert before - 1 <= _moment(ids.new()) <= before + 60
