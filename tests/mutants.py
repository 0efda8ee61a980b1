"""`make mutants`: break verbs in eleven ways and see that the tests catch each.

A mutant is a change of a few characters in a copy of the tree. The tests that are about what it breaks run on the copy;
one of them must fail. A mutant that survives is a hole in the tests, and the script ends with status 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
COPIED: Final = ("app", "workers", "migrations", "tests", "bench", "docs")


@dataclass(frozen=True)
class Mutant:
    """A change that breaks a verb, and the tests that are about it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS: Final = (
    Mutant(
        "an UPDATE more: a refused redemption writes to every member",
        "app/orders/redeem_codes.py",
        "        refuse_if_rejected(verdict)\n",
        "        if verdict.rejections:\n"
        '            await database().row("UPDATE member SET joined_at = now() WHERE merchant_id = $1", '
        "viewer.merchant_id)\n"
        "        refuse_if_rejected(verdict)\n",
        ("tests/orders/test_redeem_codes.py",),
    ),
    Mutant(
        "a row too many: a recorded purchase is two events",
        "app/orders/record_purchase.py",
        '{event("purchase.recorded", subject="id", source="b")}',
        '{event("purchase.recorded", id="gen_random_uuid()", subject="id", source="b, generate_series(1, 2)")}',
        ("tests/orders/test_record_purchase.py",),
    ),
    Mutant(
        "a missing event: codes are generated off the record",
        "app/coupons/generate_codes.py",
        '    await events.record(tx, merchant_id, "codes.generated", batch_id, actor)\n',
        "",
        ("tests/coupons/test_generate_codes.py", "tests/coupons/test_events.py"),
    ),
    Mutant(
        "a wrong state: a reinstated code comes back as if it had expired",
        "app/orders/order_changes.py",
        "UPDATE code SET state = 'ALLOCATED', redeemed_at = NULL",
        "UPDATE code SET state = 'EXPIRED', redeemed_at = NULL",
        ("tests/orders/test_reverse_redemption.py",),
    ),
    Mutant(
        "a lock less: points are taken back while they are being spent",
        "app/points/ledger.py",
        "WHERE merchant_id = :merchant_id AND member_id = :member_id FOR UPDATE\n",
        "WHERE merchant_id = :merchant_id AND member_id = :member_id\n",
        ("tests/races/test_points.py",),
    ),
    Mutant(
        "a guard less: lots are spent as they were before somebody else spent them",
        "app/points/ledger.py",
        " AND wallet.version = seen.version\n",
        "\n",
        ("tests/races/test_points.py",),
    ),
    Mutant(
        "a limit off by one: a claim more than claimsPerMember",
        "app/coupons/claims.py",
        "AND claims < p.claims_per_member))\n",
        "AND claims <= p.claims_per_member))\n",
        ("tests/coupons/test_claim_code.py",),
    ),
    Mutant(
        "a guard less: invites beyond the day's quota",
        "app/referrals/invite_members.py",
        "            <= excluded.day_max\n",
        "            <= excluded.day_max + 1\n",
        # One caller alone is refused before the statement.
        ("tests/races/test_referrals.py",),
    ),
    Mutant(
        "a replay that differs: another amount of the same order is taken for the same",
        "app/orders/record_purchase.py",
        'if not is_buyer or stands["purchase_recorded_amount"] != amount:',
        "if not is_buyer:",
        ("tests/orders/test_record_purchase.py",),
    ),
    Mutant(
        "a stranger's row: a member reads any code by its id",
        "app/coupons/rows.py",
        "AND c.id = :code_id AND (:member_id::uuid IS NULL OR c.member_id = :member_id)",
        "AND c.id = :code_id AND (:member_id::uuid IS NULL OR true)",
        ("tests/web/test_access.py", "tests/coupons/test_ownership.py", "tests/coupons/test_pool_queries.py"),
    ),
    Mutant(
        "money rounded the other way: half a minor unit goes down",
        "app/coupons/rules.py",
        "rounding=ROUND_HALF_UP",
        "rounding='ROUND_HALF_DOWN'",
        ("tests/properties/test_money.py",),
    ),
)


def main() -> int:
    """Run every mutant, or those whose names hold an argument. Returns 1 when one survives."""
    wanted = [mutant for mutant in MUTANTS if all(word in mutant.name for word in sys.argv[1:])]
    survivors = [mutant.name for mutant in wanted if not _is_caught(mutant)]
    print(f"{len(wanted) - len(survivors)} of {len(wanted)} mutants were caught.")
    return 1 if survivors else 0


def _is_caught(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory(prefix="flash-mutant-") as folder:
        tree = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        for file in ROOT.glob("*.*"):
            if file.is_file():
                shutil.copy(file, tree)
        broken = tree / mutant.file
        text = broken.read_text()
        if mutant.old not in text:
            raise SystemExit(f"{mutant.file} doesn't hold what the mutant {mutant.name!r} changes")
        broken.write_text(text.replace(mutant.old, mutant.new))
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *mutant.tests],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*)?(?: - .*)?$", ended.stdout, re.MULTILINE)
    print(f"{'caught' if failed else 'SURVIVED'}: {mutant.name}", flush=True)
    for test in list(dict.fromkeys(failed))[:5]:
        print(f"    {test}")
    if not failed and ended.returncode != 0:
        raise SystemExit(f"the tests didn't run:\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
