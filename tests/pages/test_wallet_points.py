"""Points on the wallet page. Without these it could show a balance that isn't so, or take points twice."""

from typing import Any

from playwright.async_api import Page, Route, expect

from tests.conftest import Api
from tests.factories import Shop
from tests.pages.conftest import Visit
from tests.pages.wallet_page import WalletPage, member_with_token
from tests.points.documents import RETIRE_REWARD, broken, entries, grant, purchase, redeem, reward

UNANSWERED = "No answer came, so you may have it already. Trying again can\u2019t take the points twice."
HOSTILE = "<img src=x onerror=alert(1)>&amp;"


async def _lose_answers(page: Page, *, reach: bool) -> None:
    """Cut the connection under each redemption: after the server has answered, or before it is reached."""

    async def cut(route: Route) -> None:
        if "redeemReward" not in (route.request.post_data or ""):
            await route.continue_()
            return
        if reach:
            await route.fetch()
        await route.abort()

    await page.route("**/graphql", cut)


async def test_points_that_come_and_go_elsewhere_appear_at_once(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        seen = [(await wallet.balance(), await wallet.entries())]
        for number, amount in enumerate((1500, -1499), start=1):
            await grant(shop, member, amount, f"k-{number}")
            await wallet.at_version(number)
            seen.append((await wallet.balance(), await wallet.entries()))
        changes = await wallet.changes()

    came, went = ("+1,500 points", "By the shop: goodwill"), ("-1,499 points", "By the shop: goodwill")
    assert seen == [("0 points", []), ("1,500 points", [came]), ("1 point", [went, came])]
    assert changes == [
        (1, "+1,500 points \u00b7 By the shop: goodwill"),
        (2, "-1,499 points \u00b7 By the shop: goodwill"),
    ]


async def test_the_newest_entries_are_there_and_the_others_on_demand(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    for number in range(1, 8):
        await grant(shop, member, number, f"k-{number}", reference=f"no. {number}")
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        newest = await wallet.entries()
        await grant(shop, member, 8, "k-8", reference="no. 8")
        await wallet.at_version(8)
        await page.get_by_role("button", name="Show earlier entries").click()
        await expect(page.locator("#entries li")).to_have_count(8)
        everything = await wallet.entries()
        await expect(page.get_by_role("button", name="Show earlier entries")).to_be_hidden()

    words = [(f"+{n} point{'s' if n > 1 else ''}", f"By the shop: no. {n}") for n in range(8, 0, -1)]
    assert newest == words[1:6]
    assert everything == words


async def test_points_of_a_time_offline_are_shown_once_and_in_order(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await grant(shop, member, 100, "k-0")
    async with visit(cut=True) as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await page.context.set_offline(True)
        await wallet.is_offline()
        await purchase(shop, member, "A-17")
        made = await reward(shop, name="Sticker", cost=60)
        await redeem(shop, made, member, "elsewhere")
        offline = (await wallet.balance(), await wallet.rewards())
        await page.context.set_offline(False)
        await wallet.at_version(3)
        await expect(page.locator("#rewards li")).to_have_count(1)
        online = (await wallet.balance(), await wallet.entries(), await wallet.changes(), await wallet.rewards())

    earned = (await entries(shop, member))[1][0]
    assert offline == ("100 points", [])
    assert online == (
        f"{40 + earned} points",
        [("-60 points", "Reward: Sticker"), (f"+{earned} points", "Purchase: A-17"),
         ("+100 points", "By the shop: goodwill")],
        [(2, f"+{earned} points \u00b7 Purchase: A-17"), (3, "-60 points \u00b7 Reward: Sticker")],
        [("Sticker", "60 points", "" if earned >= 20 else f"{20 - earned} points to go", earned >= 20)],
    )  # fmt: skip


async def test_a_reward_can_be_redeemed_as_soon_as_the_points_suffice(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await reward(shop, name="Mug", cost=100, stock=3)
    await reward(shop, name="Gone", cost=1, stock=0)
    await reward(shop, name="Tote", cost=1000)
    retired = await reward(shop, name="Retired", cost=1)
    await shop.do(RETIRE_REWARD, rewardId=retired["id"])
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await expect(page.locator("#rewards li")).to_have_count(3)
        poor = await wallet.rewards()
        for number, amount in enumerate((99, 1), start=1):
            await grant(shop, member, amount, f"k-{number}")
            await wallet.at_version(number)
        rich = await wallet.rewards()

    gone = ("Gone", "1 point", "Out of stock", False)
    assert poor == [
        gone,
        ("Mug", "100 points", "3 left \u00b7 100 points to go", False),
        ("Tote", "1,000 points", "1,000 points to go", False),
    ]
    assert rich == [
        gone,
        ("Mug", "100 points", "3 left", True),
        ("Tote", "1,000 points", "900 points to go", False),
    ]


async def test_redeeming_asks_takes_the_points_and_brings_the_code(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await grant(shop, member, 250, "k")
    pool = await shop.pool(name="Ten off")
    await reward(shop, name="Mug", cost=100, stock=3, poolId=pool["id"])
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await wallet.ask_for("Mug")
        await wallet.is_told("It costs 100 points. You have 250 and keep 150.")
        await wallet.answer("Cancel")
        await expect(page.get_by_role("button", name="Redeem Mug")).to_be_focused()
        declined = await entries(shop, member)
        await wallet.ask_for("Mug")
        await wallet.answer("Redeem")
        await wallet.is_told("It\u2019s yours. Here is your code, which is in your wallet too:")
        await wallet.at_version(3)
        text = await page.locator("#redeem-code").inner_text()
        await wallet.answer("Close")
        await expect(page.locator("#rewards .fine")).to_have_text("2 left")
        await page.get_by_role("button", name="Show the code of Ten off").click()
        shown = (await wallet.balance(), await wallet.ready(), await wallet.entries(), await wallet.changes())

    assert declined == [(250, 250, "ADJUSTMENT")]
    assert text.startswith("PCT-")
    assert shown == (
        "150 points",
        [text],
        [("-100 points", "Reward: Mug"), ("+250 points", "By the shop: goodwill")],
        [(2, "Claimed: Ten off"), (3, "-100 points \u00b7 Reward: Mug")],
    )
    assert await entries(shop, member) == [(250, 250, "ADJUSTMENT"), (-100, 150, "REWARD")]
    assert await broken(shop) == []


async def test_each_redemption_is_one_of_its_own(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await grant(shop, member, 250, "k")
    await reward(shop, name="Mug", cost=100)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        for version in (2, 3):
            await wallet.ask_for("Mug")
            # Twice at once is once.
            await page.evaluate("""() => {
                const button = document.querySelector("#redeem-confirm");
                button.click();
                button.click();
            }""")
            await wallet.is_told("It\u2019s yours.")
            await wallet.at_version(version)
            await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Redeem Mug")).to_be_disabled()
        # The button that opened the dialog can't have the focus any more.
        await expect(page.get_by_role("heading", name="Rewards")).to_be_focused()

    assert await entries(shop, member) == [(250, 250, "ADJUSTMENT"), (-100, 150, "REWARD"), (-100, 50, "REWARD")]


async def test_a_refusal_is_told_in_its_words_and_changes_nothing(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    rival = await shop.member()
    for number, somebody in enumerate((member, rival)):
        await grant(shop, somebody, 250, f"k-{number}")
    mug, tote = await reward(shop, name="Mug", cost=100, stock=1), await reward(shop, name="Tote", cost=200)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await wallet.ask_for("Mug")
        await redeem(shop, mug, rival, "last")
        await wallet.answer("Redeem")
        await wallet.is_told("The reward can't be had: none is left. No points were taken.")
        await wallet.answer("Close")
        await expect(page.locator("#rewards .fine").first).to_have_text("Out of stock")
        await wallet.ask_for("Tote")
        await shop.do(RETIRE_REWARD, rewardId=tote["id"])
        await wallet.answer("Redeem")
        await wallet.is_told("The reward can't be had: it is retired. No points were taken.")
        await wallet.answer("Close")
        await expect(page.locator("#rewards li")).to_have_count(1)
        shown = (await wallet.balance(), await wallet.changes(), await wallet.rewards())

    assert shown == ("250 points", [], [("Mug", "100 points", "Out of stock", False)])
    assert await entries(shop, member) == [(250, 250, "ADJUSTMENT")]


async def test_points_that_are_spent_elsewhere_meanwhile_are_missed(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await grant(shop, member, 150, "k-0")
    await reward(shop, name="Mug", cost=100)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await wallet.ask_for("Mug")

        # The points go after the page has asked for the reward, and before the server hears of that.
        async def spend_first(route: Route) -> None:
            if "redeemReward" in (route.request.post_data or ""):
                await grant(shop, member, -100, "k-1")
            await route.continue_()

        await page.route("**/graphql", spend_first)
        await wallet.answer("Redeem")
        await wallet.is_told("It takes 100 points, and you have 50. No points were taken.")
        await wallet.answer("Close")
        await wallet.at_version(2)
        await expect(page.get_by_role("button", name="Redeem Mug")).to_be_disabled()
        shown = (await wallet.balance(), await wallet.rewards())

    assert shown == ("50 points", [("Mug", "100 points", "50 points to go", False)])
    assert await entries(shop, member) == [(150, 150, "ADJUSTMENT"), (-100, 50, "ADJUSTMENT")]


async def test_points_that_go_while_it_asks_take_the_choice_away(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await grant(shop, member, 150, "k-0")
    await reward(shop, name="Mug", cost=100)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await wallet.ask_for("Mug")
        await grant(shop, member, -100, "k-1")
        await wallet.is_told("It costs 100 points. You have 50.")
        confirm = page.get_by_role("dialog").get_by_role("button", name="Redeem")
        await expect(confirm).to_be_disabled()


async def _retry(page: Page, wallet: WalletPage, version: int, sentence: str) -> None:
    await wallet.answer("Redeem")
    await wallet.is_told(UNANSWERED)
    # What was asked is still open after the dialog was closed.
    await wallet.answer("Close")
    await wallet.ask_for("Mug")
    await wallet.is_told(UNANSWERED)
    await wallet.answer("Try again")
    await wallet.is_told(UNANSWERED)
    await expect(page.get_by_role("dialog").get_by_role("button", name="Try again")).to_be_focused()
    await page.unroute("**/graphql")
    await wallet.answer("Try again")
    await wallet.is_told(sentence)
    await wallet.at_version(version)


async def test_trying_again_after_a_cut_connection_redeems_once(shop: Shop, api: Api, visit: Visit) -> None:
    pool = await shop.pool()
    await reward(shop, name="Mug", cost=100, poolId=pool["id"])
    seen: list[Any] = []
    for reach in (True, False):
        member, token = await member_with_token(shop)
        # Not enough for a second one.
        await grant(shop, member, 150, f"k-{reach}")
        async with visit(cut=True) as page:
            wallet = WalletPage(page)
            await wallet.open(api.url, token)
            await wallet.is_live()
            await wallet.ask_for("Mug")
            await _lose_answers(page, reach=reach)
            await _retry(page, wallet, 3, "It\u2019s yours. Here is your code, which is in your wallet too:")
            text = await page.locator("#redeem-code").inner_text()
            await wallet.answer("Close")
            await page.locator("#ready .show").click()
            seen.append((await wallet.balance(), await wallet.ready() == [text], len(await wallet.changes())))
        assert await entries(shop, member) == [(150, 150, "ADJUSTMENT"), (-100, 50, "REWARD")]

    assert seen == [("50 points", True, 2)] * 2
    assert await broken(shop) == []


async def test_nothing_of_another_members_points_stays(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    _, other_token = await member_with_token(shop, displayName="Grace")
    await grant(shop, member, 150, "k-0")
    await reward(shop, name="Mug", cost=100)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await wallet.ask_for("Mug")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await wallet.open(api.url, other_token)
        await expect(page.get_by_role("heading", level=1, name="Grace\u2019s wallet")).to_be_visible()
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(page.locator("#rewards li")).to_have_count(1)
        shown = (await wallet.balance(), await wallet.entries(), await wallet.rewards())

    assert shown == ("0 points", [], [("Mug", "100 points", "100 points to go", False)])


async def test_a_reward_is_redeemed_without_a_mouse(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await grant(shop, member, 250, "k")
    await reward(shop, name="Mug", cost=100)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await expect(page.locator("#rewards li")).to_have_count(1)
        focused: list[str] = []
        for keys in (("Tab", "Tab"), ("Enter",), ("Enter",)):
            for key in keys:
                await page.keyboard.press(key)
            if len(focused) == 2:
                await wallet.is_told("It\u2019s yours.")
            focused.append(await page.evaluate("document.activeElement.id || document.activeElement.className"))
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Redeem Mug")).to_be_focused()

    assert focused == ["primary redeem", "redeem-confirm", "redeem-close"]
    assert await entries(shop, member) == [(250, 250, "ADJUSTMENT"), (-100, 150, "REWARD")]


async def test_names_of_rewards_and_references_are_text(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    await reward(shop, name=HOSTILE, cost=5)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await grant(shop, member, 5, "k", reference=HOSTILE)
        await wallet.at_version(1)
        await wallet.ask_for(HOSTILE)
        title = await page.locator("#redeem-title").inner_text()
        named = [(await wallet.entries())[0][1], (await wallet.rewards())[0][0], (await wallet.changes())[0][1]]

    assert title == HOSTILE
    assert named == [f"By the shop: {HOSTILE}", HOSTILE, f"+5 points \u00b7 By the shop: {HOSTILE}"]
