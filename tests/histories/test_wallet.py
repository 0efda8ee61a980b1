"""The judge's wallet against the model of points. Without these an engine could be judged by other rules."""

from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from app.stress.wallet import Wallet
from tests.points.model import ModelDebit, ModelLot, ModelWallet
from tests.sizes import FULL, size

#: Few, so that lots run dry and returns fall short.
AMOUNTS: Final = st.sampled_from([10, 20, 30])
PLACES: Final = st.integers(0, 9)
STEPS: Final = st.one_of(
    *(st.tuples(st.just(kind), AMOUNTS) for kind in ("credit", "earn", "earn", "debit", "spend", "spend")),
    *(st.tuples(st.just(kind), PLACES) for kind in ("take back", "take back", "give back")),
)


class Both:
    """A wallet and its model, which take the same steps."""

    def __init__(self, *, recovers: bool) -> None:
        self.wallet = Wallet()
        self.model = ModelWallet(None, recovers=recovers)
        self.earned: list[tuple[str, ModelLot]] = []
        self.spent: list[tuple[str, ModelDebit]] = []
        self.names = iter(map(str, range(1000)))

    def step(self, kind: str, number: int) -> None:
        """Take a step; nothing happens where it can't be taken."""
        if kind == "credit":
            self.model.credit(number, "ADJUSTMENT", lifetime=None)
            self.wallet = self.wallet.credited(number)
        elif kind == "earn":
            name = next(self.names)
            self.earned.append((name, self.model.earn(number, lifetime=None, pending=0)))
            earned = self.wallet.credited(number, name)
            self.wallet = earned.made_good() if self.model.recovers else earned
        elif kind in {"debit", "spend"}:
            self._debit(number, next(self.names) if kind == "spend" else None)
        elif kind == "take back" and self.earned:
            self._take_back(number % len(self.earned))
        elif kind == "give back" and self.spent:
            self._give_back(number % len(self.spent))

    def _debit(self, amount: int, name: str | None) -> None:
        after = self.wallet.debited(amount, name)
        assert (after is None) == (self.model.spendable < amount)
        if after is not None:
            self.wallet = after
            spent = self.model.debit(amount, "REWARD")
            if name is not None:
                self.spent.append((name, spent))

    def _take_back(self, place: int) -> None:
        name, lot = self.earned.pop(place)
        balance = self.model.points
        got, lacking = self.model.take_back(lot)
        found = self.wallet.taken_back(name)
        assert found is not None
        self.wallet, told = found
        assert told == (-got, balance - got, lacking)

    def _give_back(self, place: int) -> None:
        name, spent = self.spent.pop(place)
        balance = self.model.points
        amount = self.model.give_back(spent)
        found = self.wallet.given_back(name)
        assert found is not None
        self.wallet, told = found
        assert told == (amount, balance + amount, 0)

    @property
    def lots(self) -> list[Any]:
        """What the model has of each lot."""
        return [(lot.amount, lot.remaining, lot.shortfall, lot.taken_back is not None) for lot in self.model.lots]

    @property
    def covers(self) -> list[Any]:
        """Which lots pay in place of which others, by their places."""
        places = {lot: place for place, lot in enumerate(self.model.lots)}
        return sorted(
            (places[lot], places[other], amount)
            for lot in self.model.lots for other, amount in lot.covers.items() if amount
        )  # fmt: skip


@settings(max_examples=size(300, 5000), deadline=None, derandomize=not FULL)
@given(st.booleans(), st.lists(STEPS, min_size=20, max_size=20))
def test_any_walk_leaves_the_wallet_that_the_model_has(recovers: bool, steps: list[tuple[str, int]]) -> None:
    both = Both(recovers=recovers)
    for kind, number in steps:
        short, entries = [lot.shortfall for lot in both.wallet.lots], len(both.model.history)
        version = both.wallet.version
        both.step(kind, number)

        wallet = both.wallet
        found = [(lot.amount, lot.remaining, lot.shortfall, lot.taken_back is not None) for lot in wallet.lots]
        assert found == both.lots
        places = {lot.since: place for place, lot in enumerate(wallet.lots)}
        assert [(places[each.payer], places[each.covered], each.amount) for each in wallet.covers] == both.covers
        fell_short = sum(after.shortfall > before for before, after in zip(short, wallet.lots, strict=False))
        assert wallet.version - version == len(both.model.history) - entries + fell_short


def test_a_wallet_of_the_same_steps_is_the_same_state() -> None:
    made = [Wallet().credited(30, "o").debited(20, "r") for _ in range(2)]

    assert made[0] is not None
    assert len(set(made)) == 1
    assert str(made[0]) == "Wallet(points=10, version=2)"
