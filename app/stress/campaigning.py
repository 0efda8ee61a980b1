"""Worlds of campaigns to a segment, which need a merchant each: a segment is of all its members."""

import random
from typing import Final

from app.stress.clients import Client
from app.stress.pools import ENDS
from app.stress.verbs import VERBS
from app.stress.worlds import Terms, World

#: How often verbs are called in one.
CAMPAIGNING: Final = {
    "createCampaign": 2.5, "readJob": 4, "cancelJob": 1.5, "claimCode": 4, "revokeCodes": 1.5, "fillPool": 1.5,
    "pausePool": 1.5, "activatePool": 3, "editPool": 1.5, "generateCodes": 1, "redeemCodes": 1.5, "revokeCode": 0.5,
    "readCodes": 3, "readWallet": 2, "readStock": 2,
}  # fmt: skip


class CampaignWorld(World):
    """Two members and two pools, whose codes suffice for some of the campaigns to both; one pool has an end."""

    def __init__(self, name: str, terms: Terms, rolls: random.Random) -> None:
        super().__init__(name, terms, rolls)
        self._weights = {verb: CAMPAIGNING.get(verb, 0) for verb in VERBS}

    async def _plain_pools(self, client: Client) -> None:
        await self.make_pool(client, codes=6, limit=3)
        self.facts["ends"].append(await self.make_pool(client, codes=5, limit=2, endsAt=ENDS[0]))
