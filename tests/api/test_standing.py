"""Who stands for whom, while an operation begins anew. Without these it would act for one that is gone by then."""

import pytest

from app import ids
from app.api.context import Role, Viewer
from app.api.standing import ErasedError, stand_in
from app.merchants.tenants import tenant
from tests.factories import Shop
from tests.people.documents import merge
from tests.people.test_erase_member import erase


async def test_whoever_stood_for_a_record_may_be_merged_and_erased_itself(shop: Shop) -> None:
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    viewer = Viewer(Role.ADMIN, owner, "system")
    first, second, third = [await shop.member() for _ in range(3)]
    named, kept, last = [ids.decode("member", each["id"]) for each in (first, second, third)]
    assert named is not None
    assert viewer.standing(named) == named

    await merge(shop, second, first)
    assert await stand_in(viewer)
    assert viewer.standing(named) == kept

    await merge(shop, third, second)
    assert await stand_in(viewer)
    assert viewer.standing(named) == last
    assert not await stand_in(viewer)

    await erase(shop, third)
    with pytest.raises(ErasedError) as told:
        await stand_in(viewer)
    # The caller knows it by the id that it named.
    assert told.value.node_id == first["id"]
