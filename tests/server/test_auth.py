"""No key, no access."""

import datetime
import hashlib
from contextlib import closing
from pathlib import Path

import pytest

from gateway.config.types import Config, Key
from gateway.core.call import Principal
from gateway.core.routing import Route, Rules
from gateway.errors import RequestError
from gateway.keyring import Keyring
from gateway.server.auth import ANONYMOUS, Authenticator
from gateway.stores.audit import Change
from gateway.stores.keys import StoredKey, create, revoke
from gateway.stores.schema import connect

SECRET = "sk-the-right-key-0123456789"
ALICE = Principal(key="alice", team="search")


def config(*keys: Key, declared: bool = True) -> Config:
    rules = Rules(models={}, tasks=(), routes=(), direct=Route("direct", use=()))
    path, ledger = Path("routes.yaml"), "sqlite:///x"
    return Config(path, "0" * 12, {}, rules, declared, keys, ledger, "reject", (), "", frozenset())


def key(value: str = SECRET, expires: datetime.datetime | None = None) -> Key:
    return Key(hashlib.sha256(value.encode()).digest(), ALICE, expires)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + SECRET.encode())],
        [(b"authorization", b"bearer   " + SECRET.encode() + b" ")],
        [(b"x-api-key", SECRET.encode())],
        [(b"x-api-key", b"wrong"), (b"authorization", b"Bearer " + SECRET.encode())],
    ],
)
def test_a_right_key_is_its_principal(headers: list[tuple[bytes, bytes]]) -> None:
    assert Authenticator(config(key()), Keyring()).identify(headers) == ALICE


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic " + SECRET.encode())],
        [(b"authorization", b"Bearer " + SECRET.encode() + b"x")],
        [(b"authorization", b"Bearer " + SECRET.encode()[:-1])],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"cookie", SECRET.encode())],
        [(b"authorization", b"Bearer wrong"), (b"x-api-key", SECRET.encode())],
    ],
)
def test_anything_else_is_401(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(RequestError) as raised:
        Authenticator(config(key()), Keyring()).identify(headers)
    error = raised.value
    assert (error.status, error.type, error.code) == (401, "authentication_error", "invalid_api_key")
    assert SECRET not in raised.value.message


def test_an_expired_key_is_401_and_one_that_expires_later_is_not() -> None:
    now = datetime.datetime.now(datetime.UTC)
    headers = [(b"x-api-key", SECRET.encode())]
    assert Authenticator(config(key(expires=now + datetime.timedelta(hours=1))), Keyring()).identify(headers) == ALICE
    with pytest.raises(RequestError):
        Authenticator(config(key(expires=now - datetime.timedelta(seconds=1))), Keyring()).identify(headers)


def test_without_a_keys_section_everybody_is_anonymous_and_with_an_empty_one_nobody_is() -> None:
    assert Authenticator(config(declared=False), Keyring()).identify([]) == ANONYMOUS
    with pytest.raises(RequestError):
        Authenticator(config(declared=True), Keyring()).identify([])
    with pytest.raises(RequestError):
        Authenticator(config(declared=True), Keyring()).identify([(b"authorization", b"Bearer " + SECRET.encode())])


def test_a_revoked_key_stays_so_when_the_clock_is_set_back(tmp_path: Path) -> None:
    now, ahead = datetime.datetime.now(datetime.UTC).timestamp(), 3600.0
    with closing(connect(tmp_path / "gateway.db", busy_seconds=1)) as connection:
        made = StoredKey(hashlib.sha256(SECRET.encode()).digest(), "alice", {"team": "search"}, now)
        create(connection, made, Change(now, "test", "keys.create", "alice"))
        ring = Keyring(f"sqlite:///{tmp_path / 'gateway.db'}")
        ring.look()
        headers = [(b"authorization", b"Bearer " + SECRET.encode())]
        assert Authenticator(config(), ring).identify(headers).key == "alice"
        revoke(connection, "alice", Change(now + ahead, "test", "keys.revoke", "alice"))
        ring.look()
    with pytest.raises(RequestError):
        Authenticator(config(), ring).identify(headers)
