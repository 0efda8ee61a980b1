"""Where webhooks may lead. Without these a merchant could let the engine's network be asked what only it may ask."""

import asyncio
import ipaddress
import subprocess
import sys
import threading
from typing import Any

import pytest

from app.config import Settings
from app.webhooks import addresses
from app.webhooks.addresses import (
    AddressRefusedError,
    HostUnknownError,
    Target,
    is_allowed,
    read_url,
    resolve,
)

PRIVATE = (
    "169.254.169.254", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "127.0.0.1",
    "127.255.255.254", "0.0.0.0", "0.1.2.3", "100.64.0.1", "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.2.1",
    "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1",
    "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%1", "fec0::1",
    "ff02::1", "fd00:ec2::254", "3fff::1", "5f00::1",
)  # fmt: skip
PUBLIC = (
    "8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "192.0.1.1", "223.255.255.255",
    "2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
)  # fmt: skip
WRONG = {
    "ftp://shop.example/": "must begin with https:// or http://",
    "shop.example": "must begin with https:// or http://",
    "//shop.example/": "must begin with https:// or http://",
    "": "must be a URL in ASCII, without spaces and backslashes",
    "https://shop.example/a b": "must be a URL in ASCII, without spaces and backslashes",
    "https://shop.example/\n": "must be a URL in ASCII, without spaces and backslashes",
    "https://sh\top.example/": "must be a URL in ASCII, without spaces and backslashes",
    "https://shop.example\\@evil.example/": "must be a URL in ASCII, without spaces and backslashes",
    "https://münchen.example/": "must be a URL in ASCII, without spaces and backslashes",
    "https://①②⑦.0.0.1/": "must be a URL in ASCII, without spaces and backslashes",
    "https://user@shop.example/": "must not contain a user or a password",
    "https://user:word@shop.example/": "must not contain a user or a password",
    "https://@shop.example/": "must not contain a user or a password",
    "https://shop.example/#part": "must not contain a fragment",
    "https://shop.example/#": "must not contain a fragment",
    "https://" + "a" * 493 + "/": "must be at most 500 characters",
} | dict.fromkeys(
    (
        "https:///path", "https://:443/", "https://shop.example:0/", "https://.example/", "https://shop..example/",
        "https://-shop.example/", "https://shop.example-/", "https://shop.example./", "https://sh%6fp.example/",
        "https://2130706433/", "https://0x7f000001/", "https://017700000001/", "https://127.1/", "https://0177.0.0.1/",
        "https://0x7f.0.0.1/", "https://127.0.0.01/", "https://127.0.0.1.1/", "https://127.0.0.0x1/",
        "https://shop.example:port/", "https://shop.example:99999/", "https://[::1/",
        "https://[::1]x/", "https://[2606:4700::1]x:443/", "https://shop.example:/", "https://shop.example:0443/",
        "https://8.8.8.8:80:443/", "https://[8.8.8.8]/", "https://2606:4700::1/",
        "https://[fe80::1%25eth0]/", "https://[::1%1]/", "https://" + "a" * 64 + ".example/",
    ),
    "must name a host and perhaps a port, like https://shop.example/hooks",
)  # fmt: skip


def _address(text: str) -> Any:
    return ipaddress.ip_address(text)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert is_allowed(_address(address), ())


def test_a_network_that_the_operator_names_is_allowed_however_its_addresses_are_written() -> None:
    networks = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/64"))

    allowed = ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00::1"]
    assert [each for each in [*allowed, "10.2.0.1", "fd00:0:0:1::1"] if is_allowed(_address(each), networks)] == allowed


def test_networks_that_are_none_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"must list networks, like 10\.1\.0\.0/16"):
        Settings(webhook_networks="10.1.0.0/16, everything")
    assert Settings(webhook_networks="").private_networks == ()


def test_a_url_is_taken_apart_as_it_is_sent() -> None:
    assert [
        read_url(url, plain=True)
        for url in (
            "https://Shop.Example",
            "http://shop.example:8080/a/b?c=d&e=@",
            "https://[2606:4700::1]:8443/",
            "https://8.8.8.8?x",
            "https://xn--mnchen-3ya.example/%20",
        )
    ] == [
        Target(is_encrypted=True, host="shop.example", port=443, authority="shop.example", path="/"),
        Target(is_encrypted=False, host="shop.example", port=8080, authority="shop.example:8080", path="/a/b?c=d&e=@"),
        Target(is_encrypted=True, host="2606:4700::1", port=8443, authority="[2606:4700::1]:8443", path="/"),
        Target(is_encrypted=True, host="8.8.8.8", port=443, authority="8.8.8.8", path="/?x"),
        Target(
            is_encrypted=True,
            host="xn--mnchen-3ya.example",
            port=443,
            authority="xn--mnchen-3ya.example",
            path="/%20",
        ),
    ]


def test_http_is_for_development() -> None:
    with pytest.raises(ValueError, match=r"^must begin with https://$"):
        read_url("http://shop.example/", plain=False)


@pytest.mark.parametrize("url", WRONG)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must") as refused:
        read_url(url, plain=True)

    assert str(refused.value) == WRONG[url]


async def test_a_name_with_one_address_that_is_not_public_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    target = read_url("https://shop.example/", plain=False)
    found: list[str] = []
    monkeypatch.setattr(addresses, "look_up", lambda _host, _port: found)

    with pytest.raises(HostUnknownError):
        await resolve(target, ())
    found += ["8.8.8.8", "2606:4700::1"]
    assert await resolve(target, ()) == ["8.8.8.8", "2606:4700::1"]
    found += ["1.1.1.1"] * 5
    assert len(await resolve(target, ())) == addresses.ADDRESSES_MAX
    found += ["10.0.0.1"]
    with pytest.raises(AddressRefusedError):
        await resolve(target, ())


#: A process that ends while a name is being looked up.
ENDING = """
import asyncio, time
from app.webhooks import addresses
addresses.look_up = lambda host, port: time.sleep(600)
async def ask():
    try:
        async with asyncio.timeout(0.1):
            await addresses.resolve(addresses.read_url("https://slow.example/", plain=False), ())
    except TimeoutError:
        print("out of time")
asyncio.run(ask())
"""


async def test_a_name_that_is_looked_up_for_long_keeps_neither_its_caller_nor_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=30
    )
    goes_on, target = threading.Event(), read_url("https://shop.example/", plain=False)

    def look_up(_host: str, _port: int) -> list[str]:
        goes_on.wait(30)
        return ["8.8.8.8"]

    monkeypatch.setattr(addresses, "_room", threading.Semaphore(2))
    monkeypatch.setattr(addresses, "look_up", look_up)
    asked = [asyncio.create_task(resolve(target, ())) for _ in range(5)]
    await asyncio.wait(asked, timeout=0.2)
    asked[0].cancel()
    goes_on.set()

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "out of time\n", "")
    assert await asyncio.gather(*asked[1:]) == [["8.8.8.8"]] * 4


async def test_what_a_resolver_makes_of_strange_spellings_is_refused_too() -> None:
    spelled = ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "::ffff:127.0.0.1", "localhost"]

    async def judge(host: str) -> str:
        target = Target(is_encrypted=True, host=host, port=443, authority=host, path="/")
        with pytest.raises((AddressRefusedError, HostUnknownError)):
            await resolve(target, ())
        return host

    assert await asyncio.gather(*(judge(host) for host in spelled)) == spelled
