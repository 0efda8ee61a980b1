"""Every verb that is tried under load, by its name. One more is a declaration in one of these files."""

from typing import Final

from app.stress import (
    brought,
    campaigns,
    claims,
    gone,
    holds,
    invites,
    jobs,
    members,
    orders,
    points,
    pools,
    purchases,
    redemptions,
)
from app.stress.verb import Verb

VERBS: Final[dict[str, Verb]] = {
    verb.name: verb
    for verb in (
        *claims.VERBS, *redemptions.VERBS, *orders.VERBS, *holds.VERBS, *purchases.VERBS, *points.VERBS, *invites.VERBS,
        *members.VERBS, *pools.VERBS, *brought.VERBS, *jobs.VERBS, *campaigns.VERBS, *gone.VERBS,
    )
}  # fmt: skip
