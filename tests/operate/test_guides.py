"""The guides. Without these they could tell operators and developers to do what doesn't work."""

import os
import re
from pathlib import Path
from typing import Any

from graphql import build_schema, parse, validate

from app.config import VARIABLES
from app.storage.crypto import MasterKeyring, new_master_key
from tests.factories import Shop
from tests.guides import ROOT, blocks, run
from tests.scratch import scratch_database

#: Where the blocks of each section are run, or compared with what is.
TRIED = {
    ("README.md", "A first query"): "tests/operate/test_readme.py",
    ("docs/advisor.md", "The advisor"): "tests/operate/test_guides.py",
    ("docs/advisor.md", "From a suggestion to a campaign"): "tests/advisor/test_guide.py",
    ("docs/bi.md", "BI: reports and exports"): "tests/reports/test_guide.py",
    ("docs/bi.md", "Exports"): "tests/reports/test_guide.py",
    ("docs/bi.md", "Superset, and whatever speaks SQLAlchemy"): "tests/reports/test_guide.py",
    ("docs/bi.md", "Tools that read the schema"): "tests/reports/test_guide.py",
    ("docs/bi.md", "dlt"): "tests/reports/test_guide.py",
    ("docs/bi.md", "pandas and DuckDB"): "tests/reports/test_guide.py",
    ("docs/checkout.md", "A checkout in Python"): "tests/orders/test_checkout_guide.py",
    ("docs/codes.md", "A code that leaked"): "tests/coupons/test_guide.py",
    ("docs/codes.md", "Bring printed codes along"): "tests/coupons/test_guide.py",
    ("docs/codes.md", "Codes that leaked"): "tests/coupons/test_guide.py",
    ("docs/codes.md", "Extend a sale"): "tests/coupons/test_guide.py",
    ("docs/codes.md", "Fill a pool"): "tests/coupons/test_guide.py",
    ("docs/codes.md", "Print"): "tests/coupons/test_guide.py",
    ("docs/codes.md", "Send to a segment"): "tests/coupons/test_guide.py",
    ("docs/codes.md", "Texts of your own"): "tests/coupons/test_guide.py",
    ("docs/frontend.md", "Apollo Client"): "tests/clients/test_frontend.py",
    ("docs/frontend.md", "Ask"): "tests/clients/test_frontend.py",
    ("docs/frontend.md", "A typed client"): "tests/clients/test_frontend.py",
    ("docs/frontend.md", "Generate types"): "tests/clients/test_frontend.py",
    ("docs/frontend.md", "Once, whatever happens"): "tests/clients/test_frontend.py",
    ("docs/frontend.md", "Pages"): "tests/clients/test_frontend.py",
    ("docs/frontend.md", "Refusals"): "tests/clients/test_frontend.py",
    ("docs/frontend.md", "Relay"): "tests/clients/test_frontend.py",
    ("docs/keys.md", "The keys are in a file"): "tests/operate/test_guides.py",
    ("docs/keys.md", "New data keys"): "tests/operate/test_keys.py",
    ("docs/keys.md", "New token keys"): "tests/operate/test_keys.py",
    ("docs/member-app.md", "With Apollo Client"): "tests/clients/test_clients.py",
    ("docs/member-app.md", "With graphql-ws"): "tests/clients/test_clients.py",
    ("docs/moving-in.md", "From a system like Open Loyalty"): "tests/moving/test_guide.py",
    ("docs/moving-in.md", "From a system like Voucherify"): "tests/moving/test_guide.py",
    ("docs/moving-in.md", "Killed half-way"): "tests/moving/test_guide.py",
    ("docs/operations.md", "Archive old events"): "tests/operate/test_archive.py",
    ("docs/operations.md", "Back up and restore"): "tests/operate/test_restore.py",
    ("docs/operations.md", "Deploy"): "tests/operate/test_restore.py",
    ("docs/operations.md", "Logs"): "tests/telemetry/test_logs.py",
    ("docs/operations.md", "Metrics"): "tests/telemetry/test_metrics.py",
    ("docs/promises.md", "Rows that stay"): "tests/integrity/test_constraints.py",
    ("docs/refunds.md", "Refund a part"): "tests/orders/test_refunds_guide.py",
    ("docs/returns.md", "A changed cart"): "tests/orders/test_guide.py",
    ("docs/returns.md", "An order that is off"): "tests/orders/test_guide.py",
    ("docs/returns.md", "Points that pay"): "tests/orders/test_guide.py",
    ("docs/scaling.md", "A router that is strict"): "tests/servers/test_guide.py",
    ("docs/scaling.md", "Add a server"): "tests/servers/test_guide.py",
    ("docs/scaling.md", "Moving a merchant"): "tests/servers/test_move_merchant.py",
    ("docs/states.md", "Code"): "tests/operate/test_docs.py",
    ("docs/states.md", "Hold"): "tests/operate/test_docs.py",
    ("docs/states.md", "Invite"): "tests/operate/test_docs.py",
    ("docs/states.md", "Job"): "tests/operate/test_docs.py",
    ("docs/states.md", "Pool"): "tests/operate/test_docs.py",
    ("docs/states.md", "Webhook delivery"): "tests/operate/test_docs.py",
    ("docs/upgrading.md", "Before"): "tests/storage/test_stacked.py",
    ("docs/upgrading.md", "Upgrade"): "tests/storage/test_stacked.py",
    ("docs/webhooks.md", "Another secret"): "tests/webhooks/test_guide.py",
    ("docs/webhooks.md", "Ask for events"): "tests/webhooks/test_guide.py",
    ("docs/webhooks.md", "Receive"): "tests/webhooks/test_guide.py",
    ("docs/webhooks.md", "Retries"): "tests/webhooks/test_guide.py",
}
#: What no test runs, and why.
SHOWN = {
    ("README.md", "Two commands"): "CI runs the second one; the first is what `flash up` is tested by",
    ("docs/advisor.md", "How the rules did on a real year"): "figures",
    ("docs/advisor.md", "A real small model"): "it installs the weights of a model",
    ("docs/bi.md", "What it costs"): "figures",
    ("docs/moving-in.md", "What it says"): "lines that tests/moving has",
    ("docs/operations.md", "Install"): "it needs the network; tests/operate/test_install.py runs what the wheel holds",
    ("docs/replay.md", "A real retailer's year"): "the output of a run that takes minutes; tests/replay/test_replay.py",
    ("docs/scaling.md", "Does it hold?"): "it needs a running deployment; tests/stress runs it",
    ("docs/scaling.md", "Many PostgreSQL servers"): "a drawing",
    ("docs/scaling.md", "More processes"): "they run until they are stopped; tests/operate/test_up.py runs them",
    ("docs/scaling.md", "PgBouncer"): "the settings of a server that isn't installed here",
    ("docs/upgrading.md", "With Compose"): "it needs Docker; tests/operate/test_compose.py looks for its services",
}


def test_every_setting_is_named_in_a_guide() -> None:
    guides = "".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
    settings = set(VARIABLES.values())

    assert {name for name in settings if f"`{name}" not in guides and f"{name}=" not in guides} == set()


def test_every_block_of_every_guide_is_tried_somewhere() -> None:
    guides = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    sections = {(guide, block.section) for guide in guides for block in blocks(guide)}

    assert sections - SHOWN.keys() == TRIED.keys()
    for (guide, section), test in TRIED.items():
        text = (ROOT / test).read_text()
        assert Path(guide).name in text, (guide, test)
        assert section in text or f'blocks("{guide}"' in text, (guide, section, test)


async def test_the_advisors_documents_are_valid_and_the_first_is_answered(shop: Shop) -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    (block,) = blocks("docs/advisor.md", "The advisor", "graphql")
    documents = block.text.split("\n\n")

    assert [validate(schema, parse(document)) for document in documents] == [[], []]
    asked = await shop.data(documents[0])
    assert asked["askAdvisor"]["run"]["status"] == "QUEUED"


async def test_a_master_key_in_a_file_is_replaced_as_the_guide_says(database_pool: object, tmp_path: Path) -> None:
    file = tmp_path / "master.keys"
    file.write_text(new_master_key("development") + "\n")
    (block,) = blocks("docs/keys.md", "The keys are in a file", "sh")
    async with scratch_database() as url:
        variables: dict[str, Any] = {"DATABASE_URL": url, "FLASH_MASTER_KEYS_FILE": file, "FLASH_DATA": tmp_path}
        run('flash merchant create --name "My shop" --currency USD', tmp_path, **variables)

        said = run(block.text, tmp_path, REDIS_URL=os.environ["REDIS_URL"], **variables).stdout

    (kept,) = MasterKeyring.parse(file.read_text()).keys
    assert re.fullmatch(r"k\d{14}", kept)
    assert f"3 under '{kept}', none under 'development'" in said
