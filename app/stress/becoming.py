"""What a world becomes when two records become one, when an address is proved, and when somebody is forgotten."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.stress.order import Order
from app.stress.people import (
    GIFT,
    JOINED,
    PEOPLE,
    Change,
    Claim,
    Claims,
    Edge,
    People,
    State,
    is_key_of,
    paid_for,
    renamed,
)
from app.stress.wallet import Cover, Held, Return, Spent, Wallet

#: Versions of a record that was merged are numbered far below those of the member that was kept.
_APART: Final = 1000
#: Whose what was an address's is, once whoever had it was erased.
NOBODY: Final = "nobody"


@dataclass(frozen=True)
class Passed:
    """What a merging did, as its preview tells."""

    codes: int
    revoked: int
    points: int
    purchases: int
    holds: int
    referrals: int


def _meeting(change: Change, pool: str, kept: str, gone: str) -> Iterator[Claims]:
    """Return how claims of two records may become one member's: beyond the limit what is free goes, latest first."""
    claims = [(owner, place) for owner in (kept, gone) for place in range(len(change.claims(pool, owner)))]
    if not change.claims(pool, gone):
        # What the kept one has beyond a limit stays.
        yield Claims(change.claims(pool, kept), {each: each[1] for each in claims})
        return
    free = [each for each in claims if change.can_go(pool, change.claimed(pool, each))]
    room = change.facts["limits"][pool] - len(claims) + len(free)
    for going in _latest(change, pool, free, max(len(free) - max(room, 0), 0)):
        stays = [each for each in claims if each[0] == kept and each not in going]
        for moved in _numbered(change, pool, [each for each in claims if each[0] == gone and each not in going], free):
            yield _claims(change, pool, (*stays, *moved), going)


def _adopting(change: Change, pool: str, member: str, address: str) -> Iterator[Claims]:
    """Return the claims of a member that has proved an address, of whose own the latest free ones may be too many."""
    own = [(member, place) for place in range(len(change.claims(pool, member)))]
    waiting = [(address, place) for place in range(len(change.claims(pool, address)))]
    free = [each for each in waiting if change.can_go(pool, change.claimed(pool, each))]
    room = change.facts["limits"][pool] - len(own) - len(waiting) + len(free)
    for going in _latest(change, pool, free, max(len(free) - max(room, 0), 0)):
        for moved in _numbered(change, pool, [each for each in waiting if each not in going], free):
            yield _claims(change, pool, (*own, *moved), going)


def _claims(change: Change, pool: str, stays: Sequence[Claim], going: Sequence[Claim]) -> Claims:
    return Claims(
        tuple(change.claimed(pool, each) for each in stays),
        {each: place for place, each in enumerate(stays)},
        [change.claimed(pool, each) for each in going],
    )


def _latest(change: Change, pool: str, free: Sequence[Claim], count: int) -> Iterator[tuple[Claim, ...]]:
    """Return which so many may be the latest: of two that were claimed at once either is."""
    for going in itertools.combinations(free, count):
        stays = [each for each in free if each not in going]
        if not any(change.is_earlier(pool, one, other) for one in going for other in stays):
            yield going


def _numbered(change: Change, pool: str, claims: Sequence[Claim], free: Sequence[Claim]) -> Iterator[tuple[Claim, ...]]:
    """Return in which orders claims may be numbered: first those that can't be taken back, then first come first."""
    for order in itertools.permutations(claims):
        pairs = list(itertools.combinations(order, 2))
        if any(one in free and other not in free for one, other in pairs):
            continue
        if not any((one in free) == (other in free) and change.is_earlier(pool, other, one) for one, other in pairs):
            yield order


def merging(change: Change, kept: str, gone: str, dropped: Sequence[Edge]) -> Iterator[tuple[State, Passed | None]]:
    """Return what a world may be once one record is a part of another, and what that did as far as it is followed."""
    for each in dropped:
        _drop(change, each)
    pools = list(change.facts["limits"])
    counted = sum(order.bought is not None and order.bought.member == gone for _, order in change.of_kind("order"))
    holds = sum(
        hold.status == "HELD" and hold.presenter == gone
        for _, order in change.of_kind("order") for hold in order.holds
    )  # fmt: skip
    referrals = sum(each.referrer == gone for each in change.people.edges)
    codes, wallet = change.codes_of(gone), change.get(f"wallet:{gone}")
    is_counted = change.counts_codes(kept, gone, pools=pools)
    is_told = is_counted and wallet != change.unknown and change.knows_orders()
    known = _lose_track(change, kept, gone)
    for found in itertools.product(*(list(_meeting(change, pool, kept, gone)) for pool in known)):
        after, revoked = change.copy(), sum(len(of_pool.surplus) for of_pool in found)
        for pool, of_pool in zip(known, found, strict=True):
            after.pass_claims(pool, of_pool, gone, kept)
        _meet(after, kept, gone, codes + revoked if is_counted else None)
        yield after.state, Passed(codes, revoked, wallet.points, counted, holds, referrals) if is_told else None


def _lose_track(change: Change, *owners: str) -> list[str]:
    """Follow no more what depends on what some people have of a pool, where that isn't known. Returns all others."""
    known = [pool for pool in change.facts["limits"] if change.knows_claims(pool, *owners)]
    followed = {f"code:{code}" for pool in known for code in change.facts["codes"].get(pool, ())}
    for name, code in change.of_kind("code"):
        if code.owner in owners and name not in followed:
            change.forget(name)
    lost = [pool for pool in change.facts["limits"] if pool not in known]
    claims = {f"claims:{pool}/{owner}" for pool in lost for owner in owners}
    change.forget(*claims, *(f"stock:{pool}" for pool in lost))
    change.forget(*(name for name, kept in change.of_kind("key") if is_key_of(name, kept, claims)))
    return known


def _meet(change: Change, kept: str, gone: str, changes: int | None) -> None:
    """Let all else of a record be the kept member's, with so many changes for codes, if they are known."""
    people = change.people
    shift = -_APART * 2 ** (people.mergings + 1)
    one, other = (change.get(f"wallet:{each}") for each in (kept, gone))
    if change.unknown in {one, other}:
        change.forget(f"wallet:{kept}")
    else:
        version = one.version + sum(lot.remaining > 0 for lot in other.lots)
        change.put(f"wallet:{kept}", _recounted(together(one, other, shift)._replace(version=version), changes))
    change.forget(f"wallet:{gone}")
    for kind, sum_of in (("quota", _sum), ("brought", _sum_if_any)):
        both = [change.get(f"{kind}:{each}") for each in (kept, gone)]
        change.put(f"{kind}:{kept}", change.unknown if change.unknown in both else sum_of(*both))
        change.forget(f"{kind}:{gone}")
    change.rename(gone, kept)
    change.put(PEOPLE, change.people._replace(mergings=people.mergings + 1))


def _recounted(wallet: Wallet, changes: int | None) -> Wallet:
    """Return a wallet after so many changes that aren't about points; undated if nobody follows how many."""
    if changes is None:
        return wallet._replace(is_dated=False)
    return wallet._replace(version=wallet.version + changes)


def _sum(one: int, other: int) -> int:
    return one + other


def _sum_if_any(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def together(kept: Wallet, gone: Wallet, shift: int) -> Wallet:
    """Return a wallet with the lots of another one, what was spent and is held of them, and what goes back to them.

    Nothing but what both began with is ever spent: that comes first.
    """
    lots = (*kept.lots, *(lot._replace(since=lot.since + shift) for lot in gone.lots))
    first = sorted(lots, key=lambda lot: not (lot.order is None and lot.amount == GIFT))
    returns = (
        Return(each.since + shift, each.lot + shift, each.shortfall) for each in gone.returns
    )  # fmt: skip
    covers = (
        Cover(each.payer + shift, (each.covered[0] + shift, each.covered[1] - shift), each.amount)
        for each in gone.covers
    )  # fmt: skip
    spent = (
        Spent(each.name, each.since + shift, tuple((since + shift, part) for since, part in each.parts))
        for each in gone.spent
    )  # fmt: skip
    held = (
        Held(each.hold, tuple((since + shift, part, at + shift) for since, part, at in each.parts))
        for each in gone.held
    )  # fmt: skip
    return kept._replace(
        lots=tuple(first), returns=(*kept.returns, *returns), covers=(*kept.covers, *covers),
        spent=(*kept.spent, *spent), held=(*kept.held, *held), endings=(*kept.endings, *gone.endings),
    )  # fmt: skip


def _drop(change: Change, edge: Edge) -> None:
    """Let a referral fall, whatever it paid for."""
    change.put(PEOPLE, change.people._replace(edges=tuple(each for each in change.people.edges if each != edge)))
    for member in (edge.referrer, edge.referee):
        wallet = change.get(f"wallet:{member}")
        if wallet != change.unknown:
            name = paid_for(edge.invite)
            after, _ = wallet.followed(name, 0, recovers=change.facts["recovers"])
            change.put(f"wallet:{member}", after)


def adopting(change: Change, address: str) -> Iterator[State]:
    """Return what a world may be once an address is proved: its codes are those of whoever has written it down."""
    member, pools = change.people.holder or "", list(change.facts["limits"])
    wallet = change.get(f"wallet:{member}")
    change.put(PEOPLE, change.people._replace(is_proven=True))
    change.forget(f"wallet:{address}")
    codes, is_counted = change.codes_of(address), change.counts_codes(member, address, pools=pools)
    known = _lose_track(change, member, address)
    for found in itertools.product(*(list(_adopting(change, pool, member, address)) for pool in known)):
        after, changes = change.copy(), codes + sum(len(each.surplus) for each in found)
        for pool, each in zip(known, found, strict=True):
            after.pass_claims(pool, each, address, member)
        if wallet != change.unknown:
            after.put(f"wallet:{member}", _recounted(wallet, changes if is_counted else None))
        after.rename(address, member)
        yield after.state


def erasing(change: Change, member: str, address: str) -> State:
    """Return what a world is once somebody is forgotten: codes and holds end, and so do invites that nobody accepted.

    An address that it has written down or proved is nobody's.
    """
    people = change.people
    is_holder = people.holder == member
    owners = {member, *([address] if is_holder else [])}
    for name, order in change.of_kind("order"):
        change.put(name, _released(order, member))
    for pool in change.facts["limits"]:
        is_counted = change.counts_codes(*owners, pools=[pool])
        mine = [code for code in change.facts["codes"].get(pool, ()) if change.is_alive_of(code, owners)]
        for code in mine:
            change.put(f"code:{code}", change.get(f"code:{code}")._replace(revoked=True, hold=None))
        if is_counted:
            change.move_stock(pool, revoked=len(mine) + sum(change.untold(owner, pool) for owner in owners))
        else:
            change.forget(f"stock:{pool}")
    _end_invites(change, member)
    change.forget(f"wallet:{member}", *([f"wallet:{address}"] if is_holder else []))
    if is_holder:
        people = _give_up(change, people, address)
    change.put(PEOPLE, people._replace(erased=(*people.erased, member)))
    return change.state


def _end_invites(change: Change, member: str) -> None:
    """Cancel the invites of somebody that nobody has accepted; an address that was its own may be invited again."""
    people = change.people
    for invite, sender, email in change.facts["sent"]:
        if people.was_brought_by(invite) == member:
            change.put(f"address:{email}", None)
        if people.standing(sender) == member:
            if change.get(f"invite:{invite}") == "PENDING":
                change.put(f"invite:{invite}", "CANCELLED")
            if change.get(f"address:{email}") not in {None, JOINED, change.unknown}:
                change.put(f"address:{email}", None)


def _give_up(change: Change, people: People, address: str) -> People:
    """Let an address be nobody's: whoever has it from now on has nothing to do with what was its."""
    for name, found in change.state.items():
        if name != PEOPLE and found != change.unknown:
            change.put(name, renamed(found, address, NOBODY))
    for pool in change.facts["limits"]:
        change.put(f"claims:{pool}/{address}", ())
    kept = tuple(each for each in people.kept if each[0] != address)
    return people._replace(holder=None, is_proven=False, kept=kept)


def _released(order: Order, member: str) -> Order:
    """Return an order without the holds of somebody that is forgotten."""
    own = order.for_whom[-1:] == (member,)
    holds = [
        hold._replace(status="RELEASED")
        if (own and hold.status in {"HELD", "EXPIRED"}) or (hold.presenter == member and hold.status == "HELD")
        else hold
        for hold in order.holds
    ]  # fmt: skip
    return order._replace(holds=tuple(holds))
