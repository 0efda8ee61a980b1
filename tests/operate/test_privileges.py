"""As root among other users. Without these one of them could become root, or the user that PostgreSQL runs as."""

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.operate.embedded import DataDirectory
from app.storage.crypto import MasterKeyring, new_master_key
from app.storage.folders import refuse_strangers
from app.storage.master_keys import replace_file
from tests.operate.processes import flash, refusal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="what root must not trust is NOT tried: it needs root")
STRANGER = 12_345
LONG = "a name that no socket's path may have " * 3


def _refused(path: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        DataDirectory(path).lock()
    return str(refused.value)


def _make_everything(data: DataDirectory) -> None:
    data.lock()
    data.postgres_command()


def _folder(path: Path, owner: int, mode: int = 0o700) -> Path:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


def test_data_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    theirs = _folder(tmp_path / "theirs", STRANGER)

    assert _refused(theirs) == (
        f"Root can't trust {theirs}: {theirs} belongs to user {STRANGER}. Choose a place that only root can change."
    )
    assert list(theirs.iterdir()) == []


def test_folder_of_another_user_on_the_way_is_refused(tmp_path: Path) -> None:
    theirs = _folder(tmp_path / "theirs", STRANGER)

    assert _refused(theirs / "ours").startswith(f"Root can't trust {theirs / 'ours'}: {theirs} belongs to user")
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_parent_that_others_can_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    shared = _folder(tmp_path / "shared", 0, mode)

    assert _refused(shared / "data").startswith(f"Root can't trust {shared / 'data'}: {shared} can be written by other")
    assert list(shared.iterdir()) == []


def test_sticky_parent_is_fine_and_a_shared_data_directory_is_not(tmp_path: Path) -> None:
    sticky = _folder(tmp_path / "sticky", 0, 0o1777)

    DataDirectory(sticky / "data").lock()

    assert stat.S_IMODE((sticky / "data").stat().st_mode) == 0o700
    assert _refused(sticky).startswith(f"Other users can write to {sticky}; ")


def test_link_of_another_user_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    ours, sticky = _folder(tmp_path / "ours", 0), _folder(tmp_path / "sticky", 0, 0o1777)
    theirs, link = sticky / "theirs", tmp_path / "link"
    theirs.symlink_to(ours)
    os.lchown(theirs, STRANGER, STRANGER)
    link.symlink_to("sticky/theirs")

    for path in (theirs, theirs / "data", link / "data"):
        assert _refused(path) == (
            f"Root can't trust {path}: {theirs} belongs to user {STRANGER}. Choose a place that only root can change."
        )
    assert list(ours.iterdir()) == []


def test_link_of_root_is_followed(tmp_path: Path) -> None:
    ours = _folder(tmp_path / "ours", 0)
    (tmp_path / "link").symlink_to("../" + "/".join(ours.parts[-2:]))

    DataDirectory(tmp_path / "link").lock()

    assert (ours / "flash.lock").exists()


def test_links_without_an_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")

    with pytest.raises(ConfigurationError, match="is one of too many links"):
        refuse_strangers(tmp_path / "circle")


@pytest.mark.parametrize("name", ["postgres", "valkey", "logs"])
def test_link_in_the_place_of_a_folder_gives_nothing_away(name: str, tmp_path: Path) -> None:
    victim, data = _folder(tmp_path / "victim", 0), DataDirectory(_folder(tmp_path / "data", 0))
    (data.path / name).symlink_to(victim)

    with pytest.raises(ConfigurationError, match=f"{name} is a link; it must be a folder"):
        _make_everything(data)

    assert victim.stat().st_uid == 0
    assert list(victim.iterdir()) == []


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataDirectory]:
    """A data directory whose sockets can't be in it, locked, and a folder for temporary things of its own."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        made = DataDirectory(tmp_path / LONG.strip())
        made.lock()
        yield made


def _sockets(data: DataDirectory) -> list[Path]:
    return [Path(data.database_url.partition("host=")[2]), Path(data.redis_url.removeprefix("unix://")).parent]


def test_sockets_are_in_folders_that_nobody_can_foresee(data: DataDirectory, tmp_path: Path) -> None:
    another = DataDirectory(tmp_path / f"{LONG}again")
    another.lock()
    before = _sockets(another)
    shutil.rmtree(another.path)
    another.lock()

    found = _sockets(data)

    # A directory of the same name has others, and each remembers its own.
    made = [*found, *before, *_sockets(another)]
    assert len(set(made)) == 6
    assert {each.name for each in made} == {each.name for each in Path(tempfile.gettempdir()).iterdir()}
    assert {stat.S_IMODE(each.stat().st_mode) for each in made} == {0o700}
    assert _sockets(data) == found


def test_sockets_of_postgresql_are_in_a_folder_of_its_user(data: DataDirectory) -> None:
    command = data.postgres_command()

    postgres, valkey = _sockets(data)
    assert (postgres.stat().st_uid, valkey.stat().st_uid) == (pwd.getpwnam("nobody").pw_uid, 0)
    assert command.arguments[command.arguments.index("-k") + 1] == str(postgres)


@pytest.mark.parametrize("planted", ["folder", "link", "open"])
def test_sockets_folder_that_another_user_made_again_is_not_used(planted: str, data: DataDirectory) -> None:
    found = _sockets(data)
    for each in found:
        each.rmdir()
        if planted == "folder":
            _folder(each, STRANGER)
        elif planted == "link":
            each.symlink_to(_folder(each.with_suffix(".theirs"), STRANGER))
        else:
            _folder(each, 0, 0o777)

    assert not set(found) & set(_sockets(data))


def test_other_commands_keep_to_the_sockets_of_what_runs(data: DataDirectory) -> None:
    running = _sockets(data)

    assert _sockets(DataDirectory(data.path)) == running

    for each in running:
        each.rmdir()
    with pytest.raises(ConfigurationError, match="has its sockets where this command can't see them"):
        _sockets(DataDirectory(data.path))


def test_master_keys_in_a_folder_of_another_user_are_not_replaced(tmp_path: Path) -> None:
    theirs, keys = _folder(tmp_path / "theirs", STRANGER), MasterKeyring.parse(new_master_key("k1"))
    (theirs / "master.keys").write_text(keys.spelled())

    with pytest.raises(ConfigurationError, match=f"{theirs} belongs to user {STRANGER}"):
        replace_file(theirs / "master.keys", keys.led_by("k2"))

    assert [file.name for file in theirs.iterdir()] == ["master.keys"]
    assert (theirs / "master.keys").read_text() == keys.spelled()


def test_commands_refuse_it_with_a_sentence_and_doctor_says_so(tmp_path: Path) -> None:
    theirs = _folder(tmp_path / "theirs", STRANGER)
    (theirs / "master.keys").write_text("planted")

    said = refusal("up", "--port", "0", "--data", theirs)
    looked = flash("doctor", "--data", theirs)

    assert said.startswith(f"Root can't trust {theirs}: ")
    assert looked.returncode == 1
    assert f"!!  data directory  {theirs} isn't only yours\n" in looked.stdout
