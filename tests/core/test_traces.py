"""W3C trace context, to the letter: https://www.w3.org/TR/trace-context/ and its test suite's cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.traces import Parent, Sampling, begin, outgoing, read_parent, read_sampling

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{CALLER}-01"
DICE = bytes(range(1, 25))


@pytest.mark.parametrize(
    ("sent", "flags"),
    [
        (GOOD, 1),
        (f" {GOOD}\t", 1),
        (f"00-{TRACE}-{CALLER}-00", 0),
        (f"00-{TRACE}-{CALLER}-03", 3),
        (f"00-{TRACE}-{CALLER}-ff", 3),  # what level 2 does not know is not passed on
        (f"cc-{TRACE}-{CALLER}-01", 1),  # a later version, as far as it is known
        (f"cc-{TRACE}-{CALLER}-01-what-the-future-will-be-like", 1),
    ],
)
def test_valid(sent: str, flags: int) -> None:
    assert read_parent([sent.encode()], []) == Parent(TRACE, CALLER, flags)


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "00",
        TRACE,
        GOOD[:-1],
        f"{GOOD}-",
        f"{GOOD}-more",
        f"{GOOD}.",
        f"cc-{TRACE}-{CALLER}-01.what",
        f"cc-{TRACE}-{CALLER}-011",
        f"ff-{TRACE}-{CALLER}-01",
        f"0-{TRACE}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{TRACE}-{CALLER.upper()}-01",
        f"00-{TRACE}-{CALLER}-0G",
        f"00-{TRACE[:-1]}.-{CALLER}-01",
        f"00_{TRACE}_{CALLER}_01",
        f"{GOOD},{GOOD}",
        f"00-{TRACE}-{CALLER}-01\n",
        f"00-{TRACE}-{CALLER}-\u0661\u0661",
    ],
)
def test_not_valid(sent: str) -> None:
    assert read_parent([sent.encode()], []) is None


def test_two_headers_are_none() -> None:
    assert read_parent([GOOD.encode(), GOOD.encode()], []) is None


@pytest.mark.parametrize(
    ("sent", "state"),
    [
        (["foo=1"], "foo=1"),
        (["foo=1", "bar=2"], "foo=1,bar=2"),
        (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        (["foo=1,", "", ",bar=2"], "foo=1,bar=2"),
        (["tenant@system=value", "0t-_*/@s=v"], "tenant@system=value,0t-_*/@s=v"),
        (["foo=a b"], "foo=a b"),
        ([f"{'z' * 256}={'v' * 256}"], f"{'z' * 256}={'v' * 256}"),
        ([",".join(f"k{i}=1" for i in range(32))], ",".join(f"k{i}=1" for i in range(32))),
        ([",".join(f"k{i}=1" for i in range(33))], ""),
        (["foo=1,foo=1"], ""),
        (["foo =1"], ""),
        (["FOO=1"], ""),
        (["foo.bar=1"], ""),
        (["foo@=1,bar=2"], ""),
        (["@foo=1,bar=2"], ""),
        (["foo@@bar=1"], ""),
        (["foo=bar=baz"], ""),
        (["foo=,bar=3"], ""),
        (["foo"], ""),
        ([f"{'z' * 257}=1"], ""),
        ([f"foo={'v' * 257}"], ""),
        ([f"{'t' * 242}@v=1"], ""),
        ([f"t@{'v' * 15}=1"], ""),
        (["foo=\x00"], ""),
        (["foo=\u00e9"], ""),
    ],
)
def test_state(sent: list[str], state: str) -> None:
    found = read_parent([GOOD.encode()], [each.encode() for each in sent])
    assert found == Parent(TRACE, CALLER, 1, state)


@given(st.lists(st.binary(max_size=80), max_size=3), st.lists(st.binary(max_size=80), max_size=3))
def test_whatever_comes_what_goes_is_valid(parents: list[bytes], states: list[bytes]) -> None:
    span = begin(read_parent([*parents, GOOD.encode()], states), Sampling(), DICE)
    sent = outgoing(span, "1" * 16)
    again = read_parent([sent[0][1]], [value for _, value in sent[1:]])
    assert again == Parent(span.trace_id, "1" * 16, span.flags, span.state)


@pytest.mark.parametrize(
    ("name", "ratio", "root", "sampled", "unsampled"),
    [
        ("", "", True, True, False),
        ("parentbased_always_on", "", True, True, False),
        ("parentbased_always_off", "", False, True, False),
        ("always_on", "", True, True, True),
        ("always_off", "", False, False, False),
        ("traceidratio", "1", True, True, True),
        ("traceidratio", "0", False, False, False),
        ("parentbased_traceidratio", "0", False, True, False),
        ("parentbased_traceidratio", "", True, True, False),
    ],
)
def test_sampling(name: str, ratio: str, *, root: bool, sampled: bool, unsampled: bool) -> None:
    sampling = read_sampling({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": ratio})
    came = [Parent(TRACE, CALLER, 1), Parent(TRACE, CALLER, 0)]
    assert begin(None, sampling, DICE).sampled is root
    assert [begin(parent, sampling, DICE).sampled for parent in came] == [sampled, unsampled]


@given(st.binary(min_size=24, max_size=24), st.floats(0, 1))
def test_a_share_is_of_trace_ids(dice: bytes, ratio: float) -> None:
    """As OpenTelemetry's TraceIdRatioBased: every process decides the same about a trace."""
    sampling = read_sampling({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": repr(ratio)})
    span = begin(None, sampling, dice)
    assert span.sampled is (int(span.trace_id, 16) & ((1 << 64) - 1) < round(ratio * (1 << 64)))


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "some"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
    ],
)
def test_settings_that_cannot_be(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="OTEL_TRACES_SAMPLER"):
        read_sampling(environment)
