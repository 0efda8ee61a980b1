"""The Markdown files. Without this links, paths and state diagrams could go on naming what has moved or changed."""

import re
from enum import Enum
from pathlib import Path

import pytest
from graphql import build_schema

from app.coupons.rules import TRANSITIONS
from app.coupons.types import CodeState, PoolStatus
from app.jobs.types import JobStatus
from app.orders.hold_types import HoldStatus
from app.referrals.types import InviteStatus
from app.storage.events import EVENTS, WALLET_EVENTS
from app.webhooks.types import WebhookDeliveryState
from tests.guides import ROOT, blocks

MARKDOWN = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "docs/adr/*.md", "bench/*.md", "bench/comparisons/*.md", "migrations/*.md")
    for path in ROOT.glob(pattern)
)
DECISIONS = [file for file in MARKDOWN if file.startswith("docs/adr/")]
TOP = "|".join(("app", "workers", "migrations", "tests", "bench", "docs", r"\.ci"))
STATUS = re.compile(r"accepted|superseded by \d{4}|superseded in part: .+|accepted; to be superseded .+")
#: The section of docs/states.md, and the enum whose values are its states.
STATES = {
    "Pool": PoolStatus,
    "Code": CodeState,
    "Hold": HoldStatus,
    "Invite": InviteStatus,
    "Job": JobStatus,
    "Webhook delivery": WebhookDeliveryState,
}
Transition = tuple[str, str]


def _prose(file: str) -> str:
    """Return a file's text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", (ROOT / file).read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(file: str) -> set[str]:
    """Return what links can name in a file, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", _prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", MARKDOWN)
def test_links_between_files_resolve(file: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", _prose(file)) if "://" not in link]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (ROOT / file).parent / name if name else ROOT / file
        assert target.exists(), f"{file} links to {link}"
        assert not anchor or anchor in _anchors(str(target.resolve().relative_to(ROOT))), f"{file} links to {link}"


@pytest.mark.parametrize("file", MARKDOWN)
def test_paths_of_the_repository_exist(file: str) -> None:
    quoted = set(re.findall(r"`([^`\s]+)`", _prose(file)))
    paths = {each for each in quoted if re.fullmatch(rf"({TOP})/[\w./-]*", each)}
    modules = {each for each in quoted if re.fullmatch(r"\w+\.py", each)}

    assert {path for path in paths if not (ROOT / path).exists()} == set()
    assert {module for module in modules if not any((ROOT / top).rglob(module) for top in ("app", "workers"))} == set()


@pytest.mark.parametrize("file", DECISIONS)
def test_decision_has_a_date_and_a_status(file: str) -> None:
    title, empty, date, status, *_ = (ROOT / file).read_text().splitlines()

    assert title.startswith(f"# {int(Path(file).name[:4])}. ")
    assert empty == ""
    assert re.fullmatch(r"- Date: 20\d\d-\d\d-\d\d", date)
    assert STATUS.fullmatch(status.removeprefix("- Status: "))


def test_readme_maps_every_room() -> None:
    rooms = {path.name for path in (ROOT / "app").iterdir() if (path / "__init__.py").exists()}

    assert {f"`app/{room}/`" for room in rooms} == set(re.findall(r"`app/\w+/`", _prose("README.md")))


def _drawn(section: str) -> set[Transition]:
    """Return the transitions of a section's diagram."""
    (diagram,) = blocks("docs/states.md", section, "mermaid")
    return set(re.findall(r"^ +(\S+) --> (\S+):", diagram.text, re.MULTILINE))


def _told(section: str) -> dict[Transition, str]:
    """Return the sentences below a section's diagram, by their transition."""
    text = _prose("docs/states.md").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    items = re.findall(r"^- `(\S+)` → `(\S+)`: (.+?)(?=\n- |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return {(source, target): " ".join(sentence.split()) for source, target, sentence in items}


def test_pool_diagram_is_the_table_of_transitions() -> None:
    allowed = {(source, target) for source, targets in TRANSITIONS.items() for target in targets}

    assert _drawn("Pool") == allowed | {("[*]", "DRAFT"), ("DRAFT", "[*]")}


@pytest.mark.parametrize(("section", "states"), STATES.items())
def test_diagram_has_every_state_and_a_sentence_per_transition(section: str, states: type[Enum]) -> None:
    drawn, told = _drawn(section), _told(section)
    events = {sentence: set(re.findall(r"`(\w+\.\w+)`", sentence)) for sentence in told.values()}

    assert {state for transition in drawn for state in transition} - {"[*]"} == {state.value for state in states}
    assert told.keys() == drawn
    assert set().union(*events.values()) <= EVENTS.keys()
    assert [sentence for sentence in events if not events[sentence] and "no event is written" not in sentence] == []


def test_code_sentences_name_the_events_that_leave_the_state() -> None:
    for (_, target), sentence in _told("Code").items():
        events = set(re.findall(r"`(\w+\.\w+)`", sentence))
        assert events
        assert {WALLET_EVENTS[event] for event in events if not event.startswith("codes.")} <= {target}


def test_operations_that_states_names_exist() -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    assert schema.mutation_type is not None
    calls = re.findall(r"calls? `(\w+)`", _prose("docs/states.md"))

    assert len(calls) > len(STATES)
    assert set(calls) <= schema.mutation_type.fields.keys()
