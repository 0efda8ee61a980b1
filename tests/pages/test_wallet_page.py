"""The wallet page in a browser. Without these it could miss a change, show one twice, or show what isn't so."""

import json
import re
import signal
from typing import Any

import pytest
from playwright.async_api import WebSocketRoute, expect

from tests.conftest import Api, run_api
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import Shop
from tests.orders.test_reverse_redemption import REVERSE
from tests.pages.conftest import Visit
from tests.pages.wallet_page import WalletPage, member_with_token
from tests.points.documents import grant, reward
from tests.races.storm import at_once
from tests.unguarded import unguarded

WATCH_STATE = """
() => {
  globalThis.states = [];
  const state = document.querySelector("#connection-state");
  new MutationObserver(() => states.push(state.textContent)).observe(state, { childList: true });
}
"""

#: What shows less than it has.
CUT_OFF = """[...document.querySelectorAll("main *, dialog *")].filter(
    (each) => each.checkVisibility() && each.scrollWidth > each.clientWidth && each.clientWidth > 0
).map((each) => each.outerHTML)"""
#: Of phones.
WIDTHS = (320, 360, 390)
HOSTILE = "<img src=x onerror=alert(1)>&amp;"
INVALID = "This token is not valid, or not any longer. Open the wallet with a fresh one."
AGE_EVENTS = "UPDATE event SET occurred_at = now() - interval '91 days' WHERE merchant_id = $1"


async def test_a_claim_elsewhere_appears_masked_and_its_owner_can_read_it(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop, displayName="Ada Lovelace")
    pool = await shop.pool(name="Spring sale")
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await expect(page.get_by_role("heading", level=1, name="Ada Lovelace\u2019s wallet")).to_be_visible()
        before = await wallet.ready()

        code = await shop.claim(pool, member)
        await wallet.at_version(1)
        masked = await wallet.ready()
        await page.get_by_role("button", name="Show the code of Spring sale").click()
        shown = await wallet.ready()
        await page.get_by_role("button", name="Hide the code of Spring sale").click()
        hidden = await wallet.ready()

    assert (before, masked, shown, hidden) == ([], [code["masked"]], [code["text"]], [code["masked"]])


async def test_every_kind_of_change_elsewhere_is_shown_at_once(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    pool = await shop.pool(name="Ten off")
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        code = await shop.claim(pool, member)
        await wallet.at_version(1)
        redemption = (await shop.redeem([code["text"]], member))["redemptions"][0]
        await wallet.at_version(2)
        used = (await wallet.ready(), await wallet.past())
        await shop.do(REVERSE, redemptionId=redemption["id"], reason="returned", reinstate=True)
        await wallet.at_version(3)
        back = (await wallet.ready(), await wallet.past())
        await shop.do(REVOKE, codeId=code["id"], reason="leaked")
        await wallet.at_version(4)
        gone = (await wallet.ready(), await wallet.past())
        changes = await wallet.changes()

    assert used == ([], [(code["masked"], "REDEEMED")])
    assert back == ([code["masked"]], [])
    assert gone == ([], [(code["masked"], "REVOKED")])
    assert changes == [
        (1, "Claimed: Ten off"),
        (2, "Used: Ten off"),
        (3, "Given back: Ten off"),
        (4, "Taken back: Ten off"),
    ]


async def test_what_happened_before_the_visit_is_there_and_no_change(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    first, second = [await shop.claim(await shop.pool(name=name), member) for name in ("First", "Second")]
    await shop.redeem([first["text"]], member)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await wallet.at_version(3)
        shown = (await wallet.ready(), await wallet.past(), await wallet.changes())

    assert shown == ([second["masked"]], [(first["masked"], "REDEEMED")], [])


async def test_values_and_terms_are_told_in_words(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    amount = {"amountMinor": 550, "currency": "USD"}
    for terms in (
        {"percentOff": 12.5},
        {"kind": "AMOUNT", "amountOff": amount, "minimumSpend": {"amountMinor": 4000, "currency": "USD"}},
        {"kind": "GIFT", "giftSku": "Chocolate"},
    ):
        await shop.claim(await shop.pool(**terms), member)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        values = await page.locator("#ready .value").all_inner_texts()
        fine = await page.locator("#ready .fine").all_inner_texts()

    assert values == ["A gift", "$5.50 off", "12.5% off"]
    assert fine == ["Chocolate", "On orders from $40", ""]


async def test_all_codes_of_a_large_wallet_can_be_reached(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    pool = await shop.pool(codes=70, claimsPerMember=70)
    codes = [await shop.claim(pool, member, idempotencyKey=f"k-{number}") for number in range(60)]
    async with visit(cut=True) as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        first_page = await wallet.ready()
        codes.append(await shop.claim(pool, member, idempotencyKey="live"))
        await wallet.at_version(61)
        await page.route("**/graphql", lambda route: route.abort())
        await page.get_by_role("button", name="Show older codes").click()
        await expect(page.get_by_role("button", name="Show older codes")).to_be_enabled()
        await page.unroute("**/graphql")
        await page.get_by_role("button", name="Show older codes").click()
        await expect(page.locator("#ready .code")).to_have_count(61)
        everything = await wallet.ready()
        await expect(page.get_by_role("button", name="Show older codes")).to_be_hidden()

    newest_first = [code["masked"] for code in reversed(codes)]
    assert first_page == newest_first[1:51]
    assert everything == newest_first


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
async def test_what_happens_while_the_server_is_gone_is_shown_once_and_in_order(
    shop: Shop, worker_database: str, visit: Visit, signal_: signal.Signals
) -> None:
    member, token = await member_with_token(shop)
    pools = [await shop.pool(name=f"Pool {number}") for number in range(5)]
    async with visit(cut=True) as page:
        wallet = WalletPage(page)
        with run_api(worker_database) as first:
            await wallet.open(first.url, token)
            await wallet.is_live()
            code = await shop.claim(pools[0], member)
            await wallet.at_version(1)
            first.process.send_signal(signal_)
            first.process.wait(timeout=20)
        await wallet.is_offline()
        # The API of the other tests is another process on the same database.
        await shop.claim(pools[1], member)
        await shop.redeem([code["text"]], member)
        await shop.claim(pools[2], member)
        shown_offline = await wallet.changes()
        with run_api(worker_database, int(first.url.rpartition(":")[2])):
            await wallet.at_version(4)
            await wallet.is_live()
            await shop.claim(pools[3], member)
            await wallet.at_version(5)
            changes, ready, past = await wallet.changes(), await wallet.ready(), await wallet.past()

    assert shown_offline == [(1, "Claimed: Pool 0")]
    assert changes == [
        (1, "Claimed: Pool 0"),
        (2, "Claimed: Pool 1"),
        (3, "Used: Pool 0"),
        (4, "Claimed: Pool 2"),
        (5, "Claimed: Pool 3"),
    ]
    assert len(ready) == 3
    assert past == [(code["masked"], "REDEEMED")]


async def test_what_happens_while_the_network_is_cut_is_shown_once_and_in_order(
    shop: Shop, api: Api, visit: Visit
) -> None:
    member, token = await member_with_token(shop)
    pools = [await shop.pool(name=f"Pool {number}") for number in range(4)]
    async with visit(cut=True) as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        for number in (0, 2):
            await page.context.set_offline(True)
            await wallet.is_offline()
            await shop.claim(pools[number], member)
            await shop.claim(pools[number + 1], member)
            await page.context.set_offline(False)
            await wallet.is_live()
            await wallet.at_version(number + 2)
        changes = await wallet.changes()

    assert changes == [(number + 1, f"Claimed: Pool {number}") for number in range(4)]


async def test_while_the_database_is_away_it_says_offline_and_waits_longer_each_time(
    shop: Shop, api: Api, visit: Visit
) -> None:
    """The socket opens, as the process is well, and every operation on it fails."""
    member, token = await member_with_token(shop)
    count, opened, is_away = 210, 0, True

    def without_database(socket: WebSocketRoute) -> None:
        nonlocal opened
        if not is_away:
            socket.connect_to_server()
            return
        opened += 1
        away = [{"message": "The database is away.", "extensions": {"code": "UNAVAILABLE"}}]

        def answer(text: str | bytes) -> None:
            said = json.loads(text)
            if said["type"] == "connection_init":
                socket.send(json.dumps({"type": "connection_ack"}))
            elif said["type"] == "subscribe":
                socket.send(json.dumps({"type": "error", "id": said["id"], "payload": away}))

        socket.on_message(answer)

    async with visit(cut=True) as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await page.evaluate(WATCH_STATE)
        await page.route_web_socket("**/graphql", without_database)
        # What is open stays open, so the network ends it.
        await page.context.set_offline(True)
        await wallet.is_offline()
        await page.context.set_offline(False)
        await expect(page.locator("#connection-wait")).to_have_text(re.compile(r", reconnecting in [345678] s"))
        states = await page.evaluate("states")
        await at_once((grant(shop, member, 1, f"{number}") for number in range(count)), most=20)
        is_away = False
        await page.get_by_role("button", name="Try now").click()
        await wallet.at_version(count)
        await wallet.is_live()
        changes = await wallet.changes()

    assert opened >= 1
    assert states == ["Offline"]
    # Only the newest are kept.
    assert [version for version, _ in changes] == list(range(count - 199, count + 1))


async def test_a_server_that_falls_silent_is_noticed(shop: Shop, worker_database: str, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    pool = await shop.pool(name="Meanwhile")
    async with visit(cut=True, alone=True) as page:
        wallet = WalletPage(page)
        await page.clock.install()
        with run_api(worker_database) as silent:
            await wallet.open(silent.url, token)
            await wallet.is_live()
            silent.process.send_signal(signal.SIGSTOP)
            await shop.claim(pool, member)
            # The ping, and the time that its answer may take.
            await page.clock.run_for(10_000)
            await page.clock.run_for(5_000)
            await wallet.is_offline()
            silent.process.send_signal(signal.SIGCONT)
            await page.get_by_role("button", name="Try now").click()
            await wallet.at_version(1)
            changes = await wallet.changes()

    assert changes == [(1, "Claimed: Meanwhile")]


async def test_history_that_is_gone_makes_it_read_the_wallet_anew(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    pools = [await shop.pool(name=f"Pool {number}") for number in range(3)]
    async with visit(cut=True) as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await page.context.set_offline(True)
        await wallet.is_offline()
        codes = [await shop.claim(pool, member) for pool in pools[:2]]
        await shop.redeem([codes[0]["text"]], member)
        async with unguarded("event") as tx:
            await tx.row(AGE_EVENTS, shop.merchant_id)
        await page.context.set_offline(False)
        await wallet.at_version(3)
        anew = (await wallet.ready(), await wallet.past(), await wallet.changes())
        await wallet.is_live()
        await shop.claim(pools[2], member)
        await wallet.at_version(4)
        then = await wallet.changes()

    assert anew == ([codes[1]["masked"]], [(codes[0]["masked"], "REDEEMED")], [])
    assert then == [(4, "Claimed: Pool 2")]


async def test_a_token_that_ends_is_said_and_a_fresh_one_goes_on_from_there(shop: Shop, api: Api, visit: Visit) -> None:
    member = await shop.member()
    pools = [await shop.pool(name=f"Pool {number}") for number in range(2)]
    code = await shop.claim(pools[0], member)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, await shop.token(member["id"], lifetimeSeconds=10))
        await wallet.is_live()
        await shop.claim(pools[1], member)
        await wallet.at_version(2)
        await expect(page.get_by_role("alert")).to_have_text(f"{INVALID} What is shown is version 2.")
        await expect(page.get_by_label("Member token")).to_be_focused()
        kept = await page.evaluate("sessionStorage.length")
        await shop.redeem([code["text"]], member)
        await wallet.enter(await shop.token(member["id"]))
        await wallet.at_version(3)
        await expect(page.get_by_role("alert")).to_be_hidden()
        await wallet.is_live()
        changes = await wallet.changes()

    assert kept == 0
    assert changes == [(2, "Claimed: Pool 1"), (3, "Used: Pool 0")]


async def test_another_members_token_leaves_nothing_of_the_first(shop: Shop, api: Api, visit: Visit) -> None:
    ada, token = await member_with_token(shop, displayName="Ada")
    grace, other_token = await member_with_token(shop, displayName="Grace")
    pool, second = await shop.pool(name="Ten off"), await shop.pool(name="Fifteen off")
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await shop.claim(pool, ada)
        await wallet.at_version(1)
        await wallet.open(api.url, other_token)
        await expect(page.get_by_role("heading", level=1, name="Grace\u2019s wallet")).to_be_visible()
        await wallet.is_live()
        other = (await wallet.ready(), await wallet.past(), await wallet.changes())
        await shop.claim(second, ada)
        code = await shop.claim(pool, grace)
        await wallet.at_version(1)
        then = (await wallet.ready(), await wallet.changes())

    assert other == ([], [], [])
    assert then == ([code["masked"]], [(1, "Claimed: Ten off")])


async def test_the_token_leaves_the_address_and_stays_in_the_tab(shop: Shop, api: Api, visit: Visit) -> None:
    _, token = await member_with_token(shop, displayName="Ada")
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        address = page.url
        await page.reload()
        await wallet.is_live()
        other_tab = await page.context.new_page()
        await other_tab.goto(f"{api.url}/wallet")
        await expect(other_tab.get_by_label("Member token")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Ada\u2019s wallet")).to_be_hidden()
        await page.reload()
        await expect(page.get_by_label("Member token")).to_be_visible()

    assert address == f"{api.url}/wallet"


async def test_what_is_no_members_token_is_told_apart(shop: Shop, api: Api, visit: Visit) -> None:
    async with visit() as page:
        wallet = WalletPage(page)
        await page.goto(f"{api.url}/wallet")
        said = []
        for token in ("nobody", "eyJ.eyJ.x", "flash_•", shop.admin):
            await wallet.enter(token)
            await expect(page.get_by_role("alert")).to_be_visible()
            said.append(await page.get_by_role("alert").inner_text())

    assert said == [INVALID] * 3 + ["This is a key for programs. A wallet opens with a member\u2019s token."]


async def test_names_are_text_whatever_they_spell(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop, displayName=HOSTILE)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await shop.claim(await shop.pool(name=HOSTILE), member)
        await wallet.at_version(1)
        names = [await page.locator(where).inner_text() for where in ("h1:visible", "#ready .pool", "#changes .what")]

    assert names == [f"{HOSTILE}\u2019s wallet", HOSTILE, f"Claimed: {HOSTILE}"]


async def test_the_policy_refuses_what_is_not_from_here(api: Api, browser: Any) -> None:
    page = await browser.new_page()
    try:
        await page.goto(f"{api.url}/wallet")
        refused = await page.evaluate("""async () => {
            const refused = [];
            const told = new Promise((resolve) => {
                addEventListener("securitypolicyviolation", ({ violatedDirective }) => {
                    if (refused.push(violatedDirective) === 3) resolve();
                });
            });
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.head.append(script);
            document.body.setAttribute("style", "color: red");
            await fetch("http://127.0.0.2:9/").catch(() => {});
            await told;
            return { refused, ran: Boolean(window.ran) };
        }""")
    finally:
        await page.close()

    assert refused == {"refused": ["script-src-elem", "style-src-attr", "connect-src"], "ran": False}


async def test_a_phone_scrolls_one_way_and_has_room_for_fingers(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(
        shop, displayName="Bartholomew-Maximilian Featherstonehaugh-Wolfeschlegelstein"
    )
    name = "Donaudampfschifffahrtsgesellschaftskapitänsmützen"
    for terms in (
        {"kind": "GIFT", "giftSku": "G" * 60},
        {"kind": "AMOUNT", "amountOff": {"amountMinor": 123_456_700, "currency": "USD"}},
    ):
        await shop.claim(await shop.pool(name=name, codeLifetimeDays=30, **terms), member)
    await grant(shop, member, 2_000_000_000, "k", reference="G" * 60)
    await reward(shop, name=name, cost=2_000_000_000, stock=2_000_000_000)
    async with visit(viewport={"width": WIDTHS[0], "height": 700}, has_touch=True, is_mobile=True) as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await shop.claim(await shop.pool(name=name), member)
        await wallet.at_version(4)
        for button in await page.locator(".show").all():
            await button.tap()
        shown = await wallet.ready()
        seen = []
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": 700})
            scrolls = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
            buttons = [await button.bounding_box() for button in await page.get_by_role("button").all()]
            await page.get_by_role("button", name=f"Redeem {name}").tap()
            # The dialog is over the rest, which is as it was.
            cut_off = await page.evaluate(CUT_OFF)
            dialog = await page.get_by_role("dialog").bounding_box()
            assert dialog is not None
            choices = page.get_by_role("dialog").get_by_role("button")
            buttons += [await button.bounding_box() for button in await choices.all()]
            await page.keyboard.press("Escape")
            await expect(page.get_by_role("dialog")).to_be_hidden()
            fits = 0 < dialog["x"] < dialog["x"] + dialog["width"] < width
            high = [box is not None and box["height"] >= 44 for box in buttons]
            seen.append((await page.evaluate("innerWidth"), scrolls, cut_off, fits, high))

    assert [text[:4] for text in shown] == ["PCT-", "AMT-", "GFT-"]
    assert not any("•" in text for text in shown)
    assert seen == [(width, False, [], True, [True] * 7) for width in WIDTHS]


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
async def test_both_schemes_can_be_read(shop: Shop, api: Api, visit: Visit, scheme: str, is_dark: bool) -> None:
    member, token = await member_with_token(shop)
    codes = [await shop.claim(await shop.pool(), member) for _ in range(2)]
    await grant(shop, member, 100, "k")
    for cost in (100, 101):
        await reward(shop, cost=cost)
    async with visit(color_scheme=scheme) as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await shop.redeem([codes[0]["text"]], member)
        await wallet.at_version(4)
        await expect(page.locator("#rewards li")).to_have_count(2)
        ground, contrasts = await page.evaluate(CONTRASTS)
        await page.get_by_role("button", name="Redeem Mug").first.click()
        contrasts += (await page.evaluate(CONTRASTS))[1]

    assert (ground < 0.1) == is_dark
    assert len(contrasts) > 15
    assert {text: contrast for text, contrast in contrasts if contrast < 4.5} == {}


#: The luminance of the page's ground, and every visible text with its contrast, by https://www.w3.org/TR/WCAG21/.
CONTRASTS = """() => {
    const parts = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = (color) => {
        const [red, green, blue] = parts(color).slice(0, 3).map((part) => {
            const share = part / 255;
            return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ground = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return parts(color)[3] === 0 && element.parentElement ? ground(element.parentElement) : color;
    };
    const texts = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
        && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
    return [luminance(ground(document.body)), texts.map((element) => {
        const pair = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
        return [element.textContent, (pair[0] + 0.05) / (pair[1] + 0.05)];
    })];
}"""


async def test_everything_can_be_done_without_a_mouse(shop: Shop, api: Api, visit: Visit) -> None:
    member, token = await member_with_token(shop)
    code = await shop.claim(await shop.pool(name="Ten off"), member)
    async with visit() as page:
        wallet = WalletPage(page)
        await page.goto(f"{api.url}/wallet")
        await page.keyboard.insert_text(token)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1, name="Your wallet")).to_be_focused()
        await wallet.is_live()
        reached = []
        for _ in range(2):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.textContent"))
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        await page.keyboard.press("Enter")
        shown = await wallet.ready()
        # What comes and goes meanwhile leaves the focus where it is.
        above = await shop.claim(await shop.pool(), member)
        await wallet.at_version(2)
        still = [await page.evaluate("document.activeElement.textContent")]
        await shop.redeem([above["text"]], member)
        await wallet.at_version(3)
        still.append(await page.evaluate("document.activeElement.textContent"))

    assert reached == ["Sign out", "Show"]
    assert outline == "solid"
    assert shown == [code["text"]]
    assert still == ["Hide", "Hide"]
