"""The `flash` command."""

import asyncio
import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.errors import ConfigurationError

# Imports are most of a command's time: each command imports what it needs, and no more.
# ruff: noqa: PLC0415

app = typer.Typer(
    help="Flash: coupons, points and referrals as a GraphQL server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
merchant = typer.Typer(help="Merchants.", no_args_is_help=True)
keys = typer.Typer(help="Master keys and data keys; docs/keys.md is the guide.", no_args_is_help=True)
clock = typer.Typer(help="The database's clock, by which things expire.", no_args_is_help=True)
app.add_typer(merchant, name="merchant")
app.add_typer(clock, name="clock")
app.add_typer(keys, name="keys")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        # A directory that can't be used is refused in our own words.
        readable=False,
        help="Data directory of the embedded servers and the development key.",
        show_default=".flash",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"flash {version('flash-engine')}")
        raise typer.Exit


@app.callback()
def flash(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    # What it calls has ended the command.
    del version


def main() -> None:
    """Run the command. A ConfigurationError is one sentence on stderr, and exit 1."""
    try:
        app()
    except ConfigurationError as error:
        print(f"flash: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command()
def up(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: Data = None,
    api_processes: Annotated[int, typer.Option(min=1, max=64, help="How many API processes.")] = 1,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Make a demo merchant.")] = True,
    as_json: Json = False,
) -> None:
    """Start everything: embedded servers where no URL is set, migrations, API and worker."""
    from app.operate.supervisor import Plan, supervise

    if os.environ.get("FLASH_ROUTER") or os.environ.get("FLASH_SERVER"):
        raise ConfigurationError(
            "`flash up` runs an engine on one server: unset FLASH_ROUTER and FLASH_SERVER; many servers have a guide, "
            "docs/scaling.md."
        )
    _name_data(data)
    production = os.environ.get("FLASH_ENV") == "production"
    raise SystemExit(supervise(Plan(host, port, api_processes, demo=demo and not production, as_json=as_json)))


@app.command()
def api(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: Data = None,
    fd: Annotated[
        int | None, typer.Option(hidden=True, help="A listening socket; its supervisor has checked the database.")
    ] = None,
) -> None:
    """Run one API process (for supervisors; `flash up` starts everything)."""
    # Imports make no garbage, and looking for it takes a tenth of the start.
    gc.disable()
    import socket

    from app.operate.listening import address_of, allow_many_sockets, bind
    from app.operate.places import Place, refuse_place

    _name_data(data)
    _refuse_unconfigured()
    refuse_place(Place.ROUTER, "API processes work")
    allow_many_sockets()
    if fd is None:
        from app.operate.preflight import check_place

        listening = bind(host, port)
        asyncio.run(check_place(Place.ROUTER))
        print(f"flash: listening on http://{address_of(listening)}/graphql", file=sys.stderr, flush=True)
    else:
        listening = socket.socket(fileno=fd)

    import uvicorn

    from app.config import settings
    from app.web.application import application
    from app.web.http_protocol import HEADERS, LimitedProtocol
    from app.web.server import Server
    from app.web.socket_protocol import SocketProtocol

    served = application()
    config = uvicorn.Config(
        served,
        http=LimitedProtocol,
        # Without this, uvicorn takes a start that fails for an application without a lifespan.
        lifespan="on",
        access_log=False,
        server_header=False,
        date_header=True,
        headers=HEADERS,
        # The application does it, for whatever comes from a proxy.
        proxy_headers=False,
        interface="asgi3",
        # With the time to drain less than what a supervisor waits.
        timeout_graceful_shutdown=6,
        # Longer than load balancers keep idle connections, so that they never send into a closing one.
        timeout_keep_alive=75,
        ws=SocketProtocol,
        ws_max_size=settings().message_bytes_max,
        # Compression needs more memory than everything else of a socket.
        ws_per_message_deflate=False,
        log_config=None,
        log_level="warning",
    )
    served.trust(config.forwarded_allow_ips)
    gc.freeze()
    gc.enable()
    server = Server(config, served.state.streams, settings().drain_seconds)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if not server.started:
        raise SystemExit(1)


@app.command()
def worker(data: Data = None) -> None:
    """Run one worker process (for supervisors; `flash up` starts everything)."""
    from importlib import import_module

    from app.operate.places import Place, refuse_place

    _name_data(data)
    _refuse_unconfigured()
    refuse_place(Place.SERVER, "Workers work")
    # By name, because the engine never imports its workers.
    import_module("workers.settings").run()


@app.command()
def migrate(data: Data = None) -> None:
    """Migrate the database to the schema of this version."""
    _name_data(data)

    async def work() -> None:
        print("The database is up to date.")

    _with_database(work, migrated=True)


@merchant.command("create")
def merchant_create(
    name: Annotated[str, typer.Option(help="The merchant's name.")],
    currency: Annotated[str, typer.Option(help="ISO 4217 code of all its amounts.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a merchant and its first ADMIN key, which is shown only once."""
    from app import ids
    from app.merchants.create_merchant import create_merchant

    _name_data(data)

    async def work() -> None:
        made = await create_merchant(name, currency)
        answer = {"merchantId": ids.encode("merchant", made.id), "apiKey": made.api_key}
        print(json.dumps(answer) if as_json else f"Merchant {answer['merchantId']}\nADMIN key {made.api_key}")

    _with_database(work, place="ROUTER")


@merchant.command("list")
def merchant_list(data: Data = None, as_json: Json = False) -> None:
    """Print all merchants, oldest first, with the number of their working ADMIN keys."""
    from app import ids
    from app.merchants.list_merchants import list_merchants

    _name_data(data)

    async def work() -> None:
        found = [
            {
                "merchantId": ids.encode("merchant", row["merchant_id"]),
                "name": row["name"],
                "currency": row["currency"],
                "createdAt": row["created_at"].isoformat(),
                "adminKeys": row["admin_keys"],
            }
            for row in await list_merchants()
        ]
        if as_json:
            print(json.dumps(found))
            return
        for each in found:
            keys_of_it = f"{each['adminKeys']} ADMIN key{'' if each['adminKeys'] == 1 else 's'}"
            print(f"{each['merchantId']}  {each['currency']}  {keys_of_it}  {each['name']}")

    _with_database(work)


@merchant.command("key")
def merchant_key(
    merchant_id: Annotated[str, typer.Argument(help="The merchant's id: merchant_…")],
    label: Annotated[str, typer.Option(help="What to call the key.")] = "made by the operator",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make another ADMIN key for a merchant that has lost its own. It is shown only once."""
    from app.merchants.create_admin_key import create_admin_key

    _name_data(data)

    async def work() -> None:
        secret = await create_admin_key(merchant_id, label)
        print(json.dumps({"merchantId": merchant_id, "apiKey": secret}) if as_json else f"ADMIN key {secret}")

    _with_database(work, place="EITHER")


@merchant.command("show")
def merchant_show(
    merchant_id: Annotated[str, typer.Argument(help="The merchant's id: merchant_…")], data: Data = None
) -> None:
    """Print a merchant's settings as one line of JSON."""
    _configure_merchant(merchant_id, {}, data)


@merchant.command("set")
def merchant_set(
    merchant_id: Annotated[str, typer.Argument(help="The merchant's id: merchant_…")],
    points_per_unit: Annotated[float | None, typer.Option(help="Points for each unit of the currency.")] = None,
    point_value: Annotated[float | None, typer.Option(help="What a point is worth, in minor units.")] = None,
    points_lifetime_days: Annotated[
        int | None, typer.Option(help="After how many days points expire; 0 for never.")
    ] = None,
    points_warning_days: Annotated[
        int | None, typer.Option(help="How many days before that to warn; 0 for never.")
    ] = None,
    points_pending_days: Annotated[
        int | None, typer.Option(help="After how many days a purchase's points can be spent; 0 for at once.")
    ] = None,
    recover_shortfalls: Annotated[
        bool | None, typer.Option(help="Whether later purchases make good what returns could not take back.")
    ] = None,
    erasure_memory_days: Annotated[
        int | None, typer.Option(help="For how many days limits and imports know who was erased; 0: not at all.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="IANA name, like Europe/Berlin.")] = None,
    margin_rate: Annotated[float | None, typer.Option(help="The share of a sale that is margin, 0 to 1.")] = None,
    advised_percent_max: Annotated[
        float | None, typer.Option(help="The highest percentage to advise; 0 for no limit.")
    ] = None,
    advised_amount_max: Annotated[
        int | None, typer.Option(help="The highest amount to advise, in minor units; 0 for no limit.")
    ] = None,
    data: Data = None,
) -> None:
    """Change a merchant's settings. Those that aren't named stay as they are."""
    asked = {
        "points_per_unit": points_per_unit,
        "point_value": point_value,
        "points_lifetime_days": points_lifetime_days,
        "points_warning_days": points_warning_days,
        "points_pending_days": points_pending_days,
        "recover_shortfalls": recover_shortfalls,
        "erasure_memory_days": erasure_memory_days,
        "time_zone": time_zone,
        "margin_rate": margin_rate,
        "advised_percent_max": advised_percent_max,
        "advised_amount_max": advised_amount_max,
    }
    wanted: dict[str, object] = {name: value for name, value in asked.items() if value is not None}
    for name in ("points_lifetime_days", "advised_percent_max", "advised_amount_max"):
        if wanted.get(name) == 0:
            wanted[name] = None
    _configure_merchant(merchant_id, wanted, data)


From = Annotated[
    str,
    typer.Option(
        "--from", envvar="FLASH_MOVE_FROM", help="The database that it is in: postgresql://…", show_default=False
    ),
]
To = Annotated[
    str, typer.Option("--to", envvar="FLASH_MOVE_TO", help="The database that it goes to.", show_default=False)
]


@merchant.command("move")
def merchant_move(
    merchant_id: Annotated[str, typer.Argument(help="The merchant's id: merchant_…")],
    source: From,
    target: To,
    switch: Annotated[
        str | None,
        typer.Option(
            help="The program that tells the router. It is given the merchant's UUID, and `to` or, to undo it, `from`.",
            show_default=False,
        ),
    ] = None,
    abort: Annotated[bool, typer.Option("--abort", help="Undo a move that isn't finished.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Move a merchant to another server while it is served; docs/scaling.md is the guide.

    Both addresses are those of servers themselves, not of a router. The merchant is closed for less than a second, in
    which requests wait. If it is killed half-way, run it again: it goes on. Its rows stay at --from, closed, until
    `flash merchant remove-moved`.
    """
    from app.operate import move_merchant
    from app.operate.embedded import DataDirectory
    from app.operate.running import ensure_master_keys

    _name_data(data)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    async def work() -> None:
        if abort:
            await move_merchant.abort(merchant_id, source, target, switch, say)
            return
        if switch is None:
            raise ConfigurationError("Name the program that tells the router, by --switch.")
        from app.config import settings

        ensure_master_keys(DataDirectory(settings().data))
        moved = await move_merchant.move(merchant_id, source, target, switch, say)
        if as_json:
            print(json.dumps({"merchantId": merchant_id, **asdict(moved)}))
        elif not moved.seconds_closed:
            print(f"{merchant_id} had moved already.")
        else:
            print(f"{merchant_id} has moved. It was closed for {moved.seconds_closed * 1000:.0f} ms.")

    asyncio.run(_keyed(work)())


@merchant.command("remove-moved")
def merchant_remove_moved(
    merchant_id: Annotated[str, typer.Argument(help="The merchant's id: merchant_…")],
    source: From,
    target: To,
    restored: Annotated[bool, typer.Option("--restored", help="--from is a backup of before the move.")] = False,
) -> None:
    """Delete the rows that a merchant left at --from when it moved to --to. If it is killed half-way, run it again."""
    from app.operate.move_merchant import remove_moved

    async def work() -> None:
        deleted = await remove_moved(merchant_id, source, target, is_restored=restored)
        print(f"{deleted:,} rows were deleted.")

    asyncio.run(_keyed(work)())


def _configure_merchant(named: str, wanted: dict[str, object], data: Path | None) -> None:
    from app.merchants.configure_merchant import configure_by_operator

    _name_data(data)

    async def work() -> None:
        print(json.dumps(await configure_by_operator(named, wanted)))

    _with_database(work, place="EITHER")


@app.command(hidden=True)
def demo(data: Data = None) -> None:
    """Make the demo merchant, unless it exists."""
    from app.config import settings
    from app.operate.demo import ensure_demo
    from app.operate.embedded import DataDirectory

    _name_data(data)
    _refuse_unconfigured()
    asyncio.run(ensure_demo(DataDirectory(settings().data)))


@app.command()
def schema(
    since: Annotated[
        Path | None, typer.Option(help="An older schema: print the changes; exit 1 if one breaks clients.")
    ] = None,
    data: Data = None,
) -> None:
    """Print the GraphQL schema."""
    from app.schema import sdl

    _name_data(data)
    if since is None:
        sys.stdout.write(sdl())
        return
    from app.operate.schema_changes import changes

    found = changes(since, sdl())
    for change in found:
        print(change)
    raise SystemExit(any(change.breaks for change in found))


@app.command()
def documents(
    folder: Annotated[
        Path,
        typer.Argument(help="Where the .graphql files are, at any depth, one document in each.", show_default=False),
    ],
) -> None:
    """Print a manifest of trusted documents, for FLASH_TRUSTED_DOCUMENTS; docs/adr/0020 says what it is for."""
    from app.web.trusted_documents import manifest_of

    print(json.dumps(manifest_of(folder), indent=2, ensure_ascii=False))


@keys.command("new")
def keys_new(
    name: Annotated[str, typer.Option(help="What to call it.")] = "k1",
    data: Data = None,
) -> None:
    """Print a new entry for FLASH_MASTER_KEYS."""
    from app.storage.crypto import new_master_key

    _name_data(data)
    _refuse_key_name(name)
    print(new_master_key(name))


@keys.command("rotate")
def keys_rotate(
    name: Annotated[
        str | None, typer.Option(help="What to call the new master key.", show_default="k and the time, UTC")
    ] = None,
    data: Data = None,
) -> None:
    """Put every data key under a new master key, while servers run.

    With FLASH_MASTER_KEYS_FILE, and in a data directory, the new key is first written to the file. Each process reads
    the file again when it meets the new name. `flash keys remove` then removes the old key.

    With FLASH_MASTER_KEYS nothing can be written. Add a new key (`flash keys new`) at its end for every process and
    restart them. Then move it to the front for every process, restart them, and run this.

    Codes, addresses and fingerprints aren't touched. If it is killed half-way, run it again.
    """
    from app.merchants.rotate_master_key import rotate

    _name_data(data)
    if name is not None:
        _refuse_key_name(name)

    async def work() -> None:
        rotation = await rotate(name)
        master_key = f"{'the new ' if rotation.is_new else ''}master key {rotation.current!r}"
        print(f"{rotation.rewrapped} data keys were put under {master_key}; all data keys are under it now.")
        for unused in rotation.unused:
            print(f"Nothing is under {unused!r} any more: it can be removed. Keep it with the backups made until now.")

    _with_database(_keyed(work))


@keys.command("remove")
def keys_remove(
    name: Annotated[str, typer.Argument(help="The name of the master key.", show_default=False)],
    data: Data = None,
) -> None:
    """Remove a master key from the file (FLASH_MASTER_KEYS_FILE, or the data directory's).

    Refused while it is the current key, or while any data key is under it. Running processes forget it when they end.
    """
    from app.merchants.rotate_master_key import remove

    _name_data(data)

    async def work() -> None:
        await remove(name)
        print(f"The master key {name!r} was removed.")

    _with_database(_keyed(work))


@keys.command("reencrypt")
def keys_reencrypt(
    merchant_id: Annotated[
        str | None, typer.Option("--merchant", help="Only this merchant (merchant_…).", show_default="all of them")
    ] = None,
    data: Data = None,
) -> None:
    """Encrypt every code, address, name and reason again, under a new data key per merchant, while servers run.

    It begins with a pause of 10 seconds, in which every process learns the new keys. 20 seconds later it looks at
    everything once more, for values that were written under the old keys meanwhile. If it is killed half-way, run it
    again, and it goes on. Old data keys are kept. Fingerprints, by which codes and addresses are found, don't change.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from app.merchants.reencrypt import find_merchants, reencrypt

    _name_data(data)

    async def work() -> None:
        merchants = await find_merchants(merchant_id)
        columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            done = await reencrypt(merchants, progress)
        print(f"{done.values} values of {done.merchants} merchants were encrypted again under their newest data keys.")
        if done.closed:
            print(f"{len(done.closed)} merchants were moving to another server: run this again where they are served.")
        if done.unreadable:
            for place in sorted(done.unreadable)[:20]:
                print(f"can't be decrypted: {place}")
            raise ConfigurationError(
                f"{len(done.unreadable)} values can't be decrypted with the keys of their rows; they were left as "
                "they are."
            )

    _with_database(_keyed(work))


@keys.command("rotate-tokens")
def keys_rotate_tokens(
    merchant_id: Annotated[
        str | None, typer.Option("--merchant", help="Only this merchant (merchant_…).", show_default="all of them")
    ] = None,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="End all tokens that older keys signed, half a minute later.")
    ] = False,
    data: Data = None,
) -> None:
    """Sign member tokens with a new key per merchant, while servers run.

    The new keys sign after 10 seconds, in which every process learns them. Tokens that older keys signed are good until
    they end, a day at most. Killed half-way, run it again: it goes on.
    """
    from app.merchants.reencrypt import find_merchants
    from app.merchants.rotate_token_keys import rotate_token_keys

    _name_data(data)

    async def work() -> None:
        merchants = await find_merchants(merchant_id)
        await rotate_token_keys(merchants, at_once=at_once)
        older = "are good no more" if at_once else "are good until they end, a day at most"
        print(f"New keys sign the member tokens of {len(merchants)} merchants. Tokens that older keys signed {older}.")

    _with_database(_keyed(work))


@clock.command("accept")
def clock_accept(data: Data = None) -> None:
    """Trust the database's clock as it is, after workers have stopped letting things expire.

    Run it on a machine that runs workers: the difference between its clock and the database's is accepted, too.
    """
    from redis.exceptions import RedisError

    from app.operate.clocks import accept, this_machine
    from app.operate.running import valkey

    _name_data(data)

    async def work() -> None:
        try:
            async with valkey() as at:
                seen = await accept(this_machine(), at)
        except (RedisError, OSError) as error:
            raise ConfigurationError(
                f"Valkey (or Redis) doesn't answer ({type(error).__name__}); nothing was accepted."
            ) from None
        print(f"Accepted: the database's clock is {seen.ahead:+.1f} s from this machine's. What is due expires again.")

    _with_database(work)


@app.command()
def doctor(data: Data = None, as_json: Json = False) -> None:
    """Print what is configured, what answers, what is wrong and how to fix it."""
    from app.operate.doctor import examine

    _name_data(data)
    raise SystemExit(asyncio.run(examine(as_json=as_json)))


@app.command()
def audit(data: Data = None) -> None:
    """Recompute every promise from the rows of every merchant; exit 1 if one is broken."""
    from app import ids
    from app.integrity.audit import audit as audited
    from app.integrity.audit import missing_constraints

    _name_data(data)

    async def work() -> None:
        missing = await missing_constraints()
        for constraint in missing:
            print(f"{constraint} holds nothing: it was dropped or disabled, or isn't valid")
        broken = unknown = 0
        async for merchant_id, found in audited():
            if found is None:
                unknown += 1
                print(f"{ids.encode('merchant', merchant_id)}: can't be recomputed in time")
                continue
            wrong = [f"{name} is broken by {violations} rows" for name, violations in found.items() if violations]
            print(f"{ids.encode('merchant', merchant_id)}: {'; '.join(wrong) or 'every promise holds'}")
            broken += len(wrong)
        if broken:
            raise ConfigurationError(f"{broken} promises are broken; stop all writes, and look at those rows.")
        if unknown:
            raise ConfigurationError(f"{unknown} merchants can't be recomputed in time; the others' promises hold.")
        if missing:
            raise ConfigurationError(f"Every promise holds, but {len(missing)} constraints that hold them don't.")

    _with_database(work)


@app.command()
def erase(
    log: Annotated[
        Path | None,
        typer.Option("--replay", help="The log, a file or folder.", show_default="FLASH_ERASURE_LOG"),
    ] = None,
    data: Data = None,
) -> None:
    """Erase again, in a database that was restored, whom a log of erasures names. It can be run again."""
    from app.config import settings
    from app.people.erasure_log import erase_again

    _name_data(data)
    replayed = log or settings().erasure_log
    if replayed is None:
        raise ConfigurationError("Name the log by --replay, or set FLASH_ERASURE_LOG.")

    async def work() -> None:
        print(f"{await erase_again(replayed):,} erased again.")

    _with_database(_keyed(work))


@app.command()
def export(
    merchant_id: Annotated[str, typer.Option("--merchant", help="Whose rows (merchant_…).", show_default=False)],
    directory: Annotated[
        Path | None,
        typer.Argument(help="The directory to make; it mustn't exist, or must be empty.", show_default=False),
    ] = None,
    member: Annotated[
        str | None, typer.Option(help="Print all that is known of a member (member_…), as JSON.", show_default=False)
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="A report, like pools or codes; may be repeated.", show_default="all of them"),
    ] = None,
    file_format: Annotated[Literal["csv", "parquet"], typer.Option("--format", help="Format of the files.")] = "csv",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write a merchant's rows to files, all of one moment; docs/bi.md is the guide.

    The directory appears when all its files are complete, with a manifest of their rows and checksums. Codes are
    masked; names and addresses are left out. It reads DATABASE_REPLICA_URL if that is set, and else DATABASE_URL.

    With --member it prints what is known of one person instead, decrypted: what somebody gets who asks for it.
    """
    if (directory is None) == (member is None):
        raise ConfigurationError("Name a directory for reports, or a member by --member, and not both.")
    if member is not None:
        _name_data(data)
        _with_database(lambda: _print_member(merchant_id, member))
    else:
        _export_reports(Path(directory or ""), merchant_id, table, file_format, data, as_json)


async def _print_member(merchant_id: str, member: str) -> None:
    from app.people.export_member import export_member

    print(json.dumps(await export_member(merchant_id, member), indent=2, ensure_ascii=False))


def _export_reports(
    directory: Path,
    merchant_id: str,
    table: list[str] | None,
    file_format: Literal["csv", "parquet"],
    data: Path | None,
    as_json: bool,
) -> None:
    from app.config import settings
    from app.operate.export import export as exported
    from app.operate.places import Place, refuse_place
    from app.reports.tables import REPORTS

    _name_data(data)
    replica_url = settings().database_replica_url

    async def work() -> None:
        url, setting = settings().database_url or "", "DATABASE_URL"
        if replica_url is not None:
            url, setting = replica_url, "DATABASE_REPLICA_URL"
        manifest = await exported(url, setting, merchant_id, directory, table or list(REPORTS), file_format)
        if as_json:
            print(json.dumps(json.loads(manifest.to_json())))
            return
        for each in manifest.files:
            print(f"{each.file:<24} {each.rows:>11,} rows  sha256 {each.sha256}")
        print(f"{directory} is as of {manifest.as_of}, read from the {manifest.read_from}.")

    if replica_url is not None:
        refuse_place(Place.SERVER)
        asyncio.run(work())
    else:
        _with_database(work)


@app.command("import")
def import_file(
    kind: Annotated[Literal["members", "balances", "codes", "purchases"], typer.Argument(help="What the file holds.")],
    merchant_id: Annotated[str, typer.Option("--merchant", help="Whose file (merchant_…).", show_default=False)],
    file: Annotated[Path | None, typer.Argument(help="The CSV file.", show_default=False)] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="FILE=ENGINE: a header of the file and the column that it is; FILE= leaves it out.",
            show_default="none",
        ),
    ] = None,
    correct: Annotated[bool, typer.Option("--correct", help="Change what is there and differs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge the file, and apply nothing.")] = False,
    webhooks: Annotated[
        bool, typer.Option("--webhooks", help="Tell webhooks, and who watches a wallet at this moment.")
    ] = False,
    in_circulation: Annotated[
        bool,
        typer.Option(
            "--in-circulation", help="Codes without an owner are in people's hands; otherwise they are stock."
        ),
    ] = False,
    drop: Annotated[
        bool, typer.Option("--discard", help="Delete what an import that was killed has left staged, and end.")
    ] = False,
    data: Data = None,
) -> None:
    """Bring in a CSV file of another system; docs/moving-in.md is the guide.

    All rows are judged before the first is applied. Exit 0: it is applied, or was before. Exit 1: nothing is applied,
    and each wrong row is a line on stderr. If it is killed half-way, run it again: it goes on.
    """
    from app.config import settings
    from app.moving.bring_in import Options, Screen, bring_in, discard
    from app.operate.embedded import DataDirectory
    from app.storage.rings import ringing

    _name_data(data)
    names = _mapped(map_ or [])

    async def work() -> None:
        if drop:
            print("What was staged is deleted." if await discard(merchant_id) else "Nothing is staged.")
            return
        if file is None:
            raise ConfigurationError("Name the file.")
        options = Options(names, corrects=correct, is_dry=dry_run, tells=webhooks, in_circulation=in_circulation)
        redis_url = settings().redis_url or DataDirectory(settings().data).redis_url
        async with ringing(redis_url if webhooks else None):
            status = await bring_in(kind, file, merchant_id, options, Screen())
        raise SystemExit(status)

    _with_database(_keyed(work))


def _mapped(given: list[str]) -> dict[str, str]:
    """Return the columns that headers stand for."""
    names = {}
    for each in given:
        header, separator, column = each.rpartition("=")
        if not separator:
            raise ConfigurationError(f"--map takes FILE=ENGINE, and not {each[:60]!r}.")
        names[header.strip()] = column.strip()
    return names


@app.command()
def archive(
    folder: Annotated[Path, typer.Argument(help="Where the files go, best on another disk.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Take months of events that are older than FLASH_EVENT_RETENTION_DAYS out of the database, into Parquet files.

    A month goes once its file was read back and compared, and once every webhook was told of its events. If it is
    killed, run it again.
    """
    from importlib.util import find_spec

    from app.config import settings
    from app.operate.archive import archive

    _name_data(data)
    if find_spec("pyarrow") is None:
        raise ConfigurationError("Parquet needs pyarrow: install the extra `export`.")

    async def work() -> None:
        def say(line: str) -> None:
            print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

        run = await archive(settings().database_url or "", folder, settings(), say, is_dry=dry_run)
        if as_json:
            print(json.dumps({"files": [asdict(file) for file in run.files], "kept": run.kept}))
        elif not run.files and not run.kept and not dry_run:
            print("No month is wholly older than events are kept.")

    _with_database(work)


@app.command()
def replay(
    url: Annotated[
        str, typer.Option(help="The GraphQL address of a running server.")
    ] = "http://127.0.0.1:8000/graphql",
    key: Annotated[str | None, typer.Option(envvar="FLASH_KEY", help="An ADMIN key; the demo's by default.")] = None,
    households: Annotated[int | None, typer.Option(min=1, help="Only the first N households.")] = None,
    data: Data = None,
) -> None:
    """Play a real retailer's year against a running server, over HTTP only. It can be stopped and run again."""
    from app.replay import play

    _name_data(data)
    raise SystemExit(asyncio.run(play(url, key, households)))


@app.command()
def stress(
    urls: Annotated[list[str], typer.Argument(help="The GraphQL addresses of one deployment's API processes.")],
    key: Annotated[str, typer.Option(envvar="FLASH_KEY", help="An ADMIN key.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm that members, pools, codes and points are made there.")
    ] = False,
    members: Annotated[int, typer.Option(min=2, max=5000, help="How many members rush for codes.")] = 1000,
    history: Annotated[
        Path | None, typer.Option(help="A file for what the clients of some small worlds are told, to be judged.")
    ] = None,
) -> None:
    """Fire races at a running deployment, check the promises, and print a verdict."""
    from app.stress import stress as fire

    if not yes:
        raise ConfigurationError(
            f"This makes {members:,} members and some pools for the key's merchant, which stay; confirm by --yes."
        )
    raise SystemExit(asyncio.run(fire(urls, key, members, history)))


def _refuse_key_name(name: str) -> None:
    if not (name.isascii() and name.isalnum() and len(name) <= 50):
        raise ConfigurationError("A key's name is 1 to 50 letters and digits.")


def _keyed(work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Turn what may fail half-way, keys or the database, into a ConfigurationError."""

    async def told() -> None:
        import asyncpg

        from app.storage.crypto import DecryptionError

        try:
            await work()
        except DecryptionError as error:
            raise ConfigurationError(f"The master keys don't fit this database: {error}.") from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise ConfigurationError(
                f"The database failed half-way ({type(error).__name__}); run this again, it goes on from there."
            ) from None

    return told


def _name_data(data: Path | None) -> None:
    """Set FLASH_DATA, for this process and its children."""
    if data is not None:
        os.environ["FLASH_DATA"] = str(data.expanduser().absolute())


def _refuse_unconfigured() -> None:
    """Raise ConfigurationError unless servers and keys are configured, and well-formed."""
    from app.config import dsn, settings
    from app.operate.preflight import redis_at
    from app.storage import master_keys

    configured = settings()
    if configured.database_url is None or configured.redis_url is None:
        raise ConfigurationError("Set DATABASE_URL and REDIS_URL, or use `flash up`, which starts embedded servers.")
    if not configured.has_master_keys:
        raise ConfigurationError("Set FLASH_MASTER_KEYS to what `flash keys new` prints, the same for each process.")
    dsn(configured.database_url)
    master_keys.keyring()
    redis_at(configured.redis_url)


def _with_database(
    work: Callable[[], Coroutine[Any, Any, None]],
    *,
    migrated: bool = False,
    place: Literal["SERVER", "ROUTER", "EITHER"] = "SERVER",
) -> None:
    """Run `work` against the configured database, or the embedded one, which is started if it isn't running."""
    from app.operate.places import Place, refuse_place
    from app.operate.running import running

    refuse_place(Place[place])

    async def run() -> None:
        async with running(Place[place], migrated=migrated):
            await work()

    asyncio.run(run())
