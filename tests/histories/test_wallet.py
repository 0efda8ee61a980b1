"""The judge's wallet against the model of points. Without these an engine could be judged by other rules."""

from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from app.stress.wallet import Wallet
from tests.points.model import ModelDebit, ModelHold, ModelLot, ModelWallet
from tests.sizes import FULL, size

#: Few, so that lots run dry and returns fall short.
AMOUNTS: Final = st.sampled_from([10, 20, 30])
PLACES: Final = st.integers(0, 9)
STEPS: Final = st.one_of(
    *(st.tuples(st.just(kind), AMOUNTS) for kind in ("credit", "earn", "earn", "debit", "spend", "spend")),
    *(st.tuples(st.just(kind), PLACES) for kind in ("take back", "take some back", "earn more", "give back")),
    st.tuples(st.just("give some back"), PLACES),
    st.tuples(st.just("hold"), AMOUNTS),
    *(
        st.tuples(st.just(kind), PLACES)
        for kind in ("hold more", "hold less", "capture", "capture some", "have", "free")
    ),
)


class Both:
    """A wallet and its model, which take the same steps."""

    def __init__(self, *, recovers: bool) -> None:
        self.wallet = Wallet()
        self.model = ModelWallet(None, recovers=recovers)
        #: The newest lot of each first.
        self.earned: list[tuple[str, list[ModelLot]]] = []
        self.spent: list[tuple[str, ModelDebit]] = []
        self.held: list[tuple[tuple[str, int], ModelHold]] = []
        #: How often a hold began, changed or ended without an entry of its own.
        self.holds = 0
        self.names = iter(map(str, range(1000)))
        #: How often a shortfall fell without an entry.
        self.filled = 0

    def step(self, kind: str, number: int) -> None:
        """Take a step; nothing happens where it can't be taken."""
        if kind == "credit":
            self.model.credit(number, "ADJUSTMENT", lifetime=None)
            self.wallet = self.wallet.credited(number)
        elif kind == "earn":
            name = next(self.names)
            self.earned.append((name, [self.model.earn(number, lifetime=None, pending=0)]))
            earned = self.wallet.credited(number, name)
            self.wallet = earned.made_good() if self.model.recovers else earned
        elif kind in {"debit", "spend"}:
            self._debit(number, next(self.names) if kind == "spend" else None)
        elif kind == "take back" and self.earned:
            self._take_back(number % len(self.earned), None)
        elif kind == "take some back" and self.earned:
            self._take_back(number % len(self.earned), 4 * number + 3)
        elif kind == "earn more" and self.earned:
            self._earn_more(number % len(self.earned), 4 * number + 3)
        elif kind == "give back" and self.spent:
            self._give_back(number % len(self.spent))
        elif kind == "give some back" and self.spent:
            self._give_some_back(self.spent[number % len(self.spent) :][:2], 4 * number + 3)
        elif kind == "hold":
            self._hold((next(self.names), 0), ModelHold(), number)
        elif kind in {"hold more", "hold less", "capture", "capture some", "have", "free"} and self.held:
            self._go_on(kind, *self.held.pop(number % len(self.held)))

    def _go_on(self, kind: str, name: tuple[str, int], hold: ModelHold) -> None:
        if kind in {"hold more", "hold less"}:
            self._hold(name, hold, hold.points + (5 if kind == "hold more" else -5))
        elif kind == "have":
            self._have(name, hold)
        elif kind == "free":
            self.model.free(hold)
            self.wallet = self.wallet.given_up(name)
            self.holds += 1
        else:
            self._capture(name, hold, hold.points - (0 if kind == "capture" else 5))

    def _hold(self, name: tuple[str, int], hold: ModelHold, points: int) -> None:
        held = self.model.hold(hold, [points])
        after = self.wallet.holds(name, points)
        assert (after is not None) == held
        if after is not None:
            self.wallet = after
            self.holds += 1
        if hold.points:
            self.held.append((name, hold))

    def _capture(self, name: tuple[str, int], hold: ModelHold, points: int) -> None:
        spent = self.model.capture(hold, 0, points, "PAYMENT")
        after = self.wallet.paid(name, points, name[0])
        assert after is not None
        self.wallet = after
        if points:
            self.spent.append((name[0], spent))
        else:
            self.holds += 1

    def _have(self, name: tuple[str, int], hold: ModelHold) -> None:
        """A reward costs 5 of what is held, and the rest pays."""
        points, reward = hold.points - 5, f"{name[0]} reward"
        assert self.model.hold(hold, [points, 5])
        self.spent.append((reward, self.model.capture(hold, 1, 5, "REWARD")))
        if points:
            self.spent.append((name[0], self.model.capture(hold, 0, points, "PAYMENT")))
        after = self.wallet.paid(name, points, name[0], [(5, reward)])
        assert after is not None
        self.wallet = after

    def _debit(self, amount: int, name: str | None) -> None:
        after = self.wallet.debited(amount, name)
        assert (after is None) == (self.model.spendable < amount)
        if after is not None:
            self.wallet = after
            spent = self.model.debit(amount, "REWARD")
            if name is not None:
                self.spent.append((name, spent))

    def _take_back(self, place: int, points: int | None) -> None:
        name, lots = self.earned[place]
        standing = sum(lot.standing for lot in lots)
        assert self.wallet.kept(name) == standing
        balance, points = self.model.points, standing if points is None else min(points, standing)
        got, lacking = self.model.take_back(lots, points)
        self.wallet, told = self.wallet.followed(name, standing - points, recovers=self.model.recovers)
        assert told == (-got, balance - got, lacking)

    def _earn_more(self, place: int, points: int) -> None:
        name, lots = self.earned[place]
        balance = self.model.points
        filled, lot = self.model.earn_more(lots, points, lifetime=None, pending=0)
        kept = self.wallet.kept(name)
        self.wallet, told = self.wallet.followed(name, kept + points, recovers=self.model.recovers)
        assert told == (points - filled, balance + points - filled, 0)
        self.filled += filled > 0
        if lot is not None:
            lots.insert(0, lot)

    def _give_back(self, place: int) -> None:
        name, spent = self.spent.pop(place)
        balance = self.model.points
        amount = self.model.give_back(spent)
        found = self.wallet.given_back(name)
        assert found is not None
        self.wallet, told = found
        assert told == (amount, balance + amount, 0)

    def _give_some_back(self, spent: list[tuple[str, ModelDebit]], points: int) -> None:
        points = min(points, sum(part.amount for _, debit in spent for part in debit.parts))
        self.model.give_back_some([debit for _, debit in spent], points)
        after = self.wallet.given_back_some([name for name, _ in spent], points)
        assert after is not None
        self.wallet = after
        self.spent = [each for each in self.spent if any(part.amount for part in each[1].parts)]

    @property
    def lots(self) -> list[Any]:
        """What the model has of each lot."""
        return [(lot.amount, lot.remaining, lot.held, lot.standing) for lot in self.model.lots]

    @property
    def returns(self) -> list[Any]:
        """What take-backs lack, and what lots pay for them, by the places of the lots."""
        places = {lot: place for place, lot in enumerate(self.model.lots)}
        found = [
            (places[each.lot], each.shortfall, [
                (places[lot], lot.covers[each]) for lot in self.model.lots if lot.covers.get(each)
            ])
            for each in self.model.returns
        ]  # fmt: skip
        return [each for each in found if each[1] or each[2]]


def _returns(wallet: Wallet) -> list[Any]:
    places = {lot.since: place for place, lot in enumerate(wallet.lots)}
    return [
        (places[each.lot], each.shortfall, [
            (places[cover.payer], cover.amount) for cover in wallet.covers if cover.covered == each.arising
        ])
        for each in wallet.returns
    ]  # fmt: skip


@settings(max_examples=size(150, 5000), deadline=None, derandomize=not FULL)
@given(st.booleans(), st.lists(STEPS, min_size=20, max_size=20))
def test_any_walk_leaves_the_wallet_that_the_model_has(recovers: bool, steps: list[tuple[str, int]]) -> None:
    both = Both(recovers=recovers)
    for kind, number in steps:
        short = {each.arising: each.shortfall for each in both.wallet.returns}
        entries = len(both.model.history)
        version, filled, holds = both.wallet.version, both.filled, both.holds
        both.step(kind, number)

        wallet = both.wallet
        held = [sum(part[1] for each in wallet.held for part in each.parts if part[0] == lot.since)
                for lot in wallet.lots]  # fmt: skip
        found = [
            (lot.amount, lot.remaining, of_lot, lot.amount - lot.returned)
            for lot, of_lot in zip(wallet.lots, held, strict=True)
        ]
        assert found == both.lots
        assert _returns(wallet) == both.returns
        # What a take-back lacks at once, of several lots, is one change.
        fell_short = {
            each.arising if each.arising in short else each.since
            for each in wallet.returns if each.shortfall > short.get(each.arising, 0)
        }  # fmt: skip
        changed = len(both.model.history) - entries + len(fell_short) + both.filled - filled + both.holds - holds
        assert wallet.version - version == changed


def test_a_wallet_of_the_same_steps_is_the_same_state() -> None:
    made = [Wallet().credited(30, "o").debited(20, "r") for _ in range(2)]

    assert made[0] is not None
    assert len(set(made)) == 1
    assert str(made[0]) == "Wallet(points=10, version=2)"
