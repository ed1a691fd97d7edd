import pytest

from gateway.server.listener import bind, is_loopback, show, split_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:4000", ("127.0.0.1", 4000)), ("[::1]:80", ("::1", 80)), ("localhost:0", ("localhost", 0))],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize("address", ["", "4000", ":4000", "host:", "host:http", "host:70000", "host:-1"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_taken_port_is_an_os_error_and_leaks_nothing() -> None:
    with bind("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        assert show(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(OSError, match="in use"):
            bind(f"127.0.0.1:{port}")
