"""The kinds of value that fields of routes.yaml hold, each with its wording for people and its JSON Schema.

Numbers and words may also come from `${NAME}`: then they are text that looks like one.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.config.interpolate import FromEnvironment, Missing
from gateway.config.litellm_names import LITELLM_CLOUDS, LITELLM_OPTIONS, litellm_providers
from gateway.config.patterns import compile_pattern
from gateway.config.problems import did_you_mean

REFERENCE = {"type": "string", "pattern": r"\$\{.+\}"}  # what an editor may meet in place of a number

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/@+-]{0,127}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}(/\*)?")
_GLOB = re.compile(r"[!-~ ]{1,200}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110, section 5.1
_CLOCK = re.compile(r"(24(?=:00(?::00)?$)|[01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_PERCENT = re.compile(r"([1-9][0-9]?|100)%")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,8192}")


def wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{message}", {"message": message})


def _number(value: object) -> Decimal:
    if isinstance(value, Missing):
        raise wrong(f"{value.why}; give it a default: ${{NAME:-default}}")
    if isinstance(value, FromEnvironment):
        try:
            value = Decimal(str(value))
        except InvalidOperation:
            raise wrong("must be a number, and what the environment holds is none") from None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not Decimal(value).is_finite():
        raise wrong("must be a number" + ("; leave the quotes out" if isinstance(value, str) else ""))
    return Decimal(value)


def _within(value: Decimal, least: Decimal | int, most: Decimal | int, above: bool) -> None:
    if value < least or (above and value == least):
        raise wrong(f"must be {'more than' if above else 'at least'} {least}, not {value}")
    if value > most:
        raise wrong(f"must be at most {most}")


def _numeric(least: Decimal | int, most: Decimal | int, *, above: bool = False) -> tuple[Any, Any]:
    def read(value: object) -> Decimal:
        number = _number(value)
        _within(number, least, most, above)
        return number

    bound = {"exclusiveMinimum" if above else "minimum": least, "maximum": most}
    return PlainValidator(read), WithJsonSchema({"anyOf": [{"type": "number", **bound}, REFERENCE]})


def _whole(least: int, most: int) -> tuple[Any, Any]:
    def read(value: object) -> int:
        number = _number(value)
        if number != number.to_integral_value():
            raise wrong(f"must be a whole number, not {number}")
        _within(number, least, most, False)
        return int(number)

    return PlainValidator(read), WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, REFERENCE]}
    )


def _text(value: object) -> str:
    if value is None:
        raise wrong("is empty")
    if not isinstance(value, str):
        raise wrong("must be text; put it in quotes")
    return value


def _present_text(value: object) -> str:
    text = _text(value)
    if isinstance(value, Missing):
        raise wrong(f"{value.why}; give it a default: ${{NAME:-default}}")
    return text


def _matching(pattern: re.Pattern[str], message: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = _present_text(value)
        if not pattern.fullmatch(text):
            raise wrong(message)
        return text

    return read


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError with a sentence for people."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("must be a duration such as 250ms, 5s, 10m, 1h or 30d")
    seconds = Decimal(match[1]) * _SECONDS[match[2]]
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return float(seconds)


def _duration(value: object) -> float:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        raise wrong(f"needs a unit: {value}s, for example")
    try:
        return parse_duration(_present_text(value))
    except ValueError as error:
        raise wrong(str(error)) from None


def _url(value: object) -> str:
    text = _address(value)
    if isinstance(text, Missing):
        return text
    if urlsplit(text).query:
        raise wrong("must not have a query: paths such as /chat/completions are added to it")
    return text.rstrip("/")


def _address(value: object) -> str:
    """A URL as it stands, which may have a query: receivers of webhooks have tokens there."""
    text = _text(value)
    if isinstance(value, Missing) or (isinstance(value, FromEnvironment) and not text):
        return text  # whoever has it sleeps
    try:
        parts = urlsplit(text)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or not text.isascii() or not text.isprintable() or " " in text:
        raise wrong("must be a URL such as https://api.example.com/v1")
    if parts.username is not None or parts.password is not None:
        raise wrong("must not hold a user name or password: use `api_key` or `headers`")
    if parts.fragment:
        raise wrong("must not have a fragment: none is ever sent")
    return text


OFF = "off"


def _metrics(value: object) -> str:
    if isinstance(value, str) and ("://" in value or value == OFF or isinstance(value, FromEnvironment)):
        return OFF if value == OFF else _url(value)
    raise wrong("must be a URL such as http://vllm:8000/metrics, or off")


def _secret(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[!-~]{0,8192}", text):
        raise wrong("holds a space, a line break or a character that is not ASCII (its value is not shown)")
    return value if isinstance(value, Missing) else text


def _api_version(value: object) -> str:
    text = _present_text(value)
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest", text):
        raise wrong("must be one of Azure's API versions, such as 2024-10-21, in quotes")
    return text


def _litellm_provider(value: object) -> str:
    text = _present_text(value)
    known = litellm_providers()
    if known and text not in known:
        raise wrong(f"is no provider of litellm{did_you_mean(text, known)}")
    return text


def _litellm_option(value: object) -> str:
    text = _present_text(value)
    if text not in LITELLM_OPTIONS and not text.startswith(LITELLM_CLOUDS):
        names = (*LITELLM_OPTIONS, *(f"{cloud}*" for cloud in LITELLM_CLOUDS))
        raise wrong(f"is no option of a litellm provider{did_you_mean(text, names)}")
    return text


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise wrong("is not a header name")
    return value.lower()


def _header_value(value: object) -> str:
    text = _text(value)
    if not _HEADER_VALUE.fullmatch(text):
        raise wrong("holds a line break or a character that is not ASCII (its value is not shown)")
    return value if isinstance(value, Missing) else text


def _regex(value: object) -> str:
    text = _present_text(value)
    try:
        compile_pattern(text)
    except ValueError as error:
        raise wrong(f"is not a regular expression that RE2 knows: {error}") from None
    return text


def _ledger(value: object) -> str:
    text = _present_text(value)
    name = text.removeprefix("sqlite:///")
    if name == text or not name.strip("/") or "?" in name or "\0" in name or name == ":memory:":
        raise wrong("must be a file, as sqlite:///gateway.db (relative to this file) or sqlite:////var/lib/gateway.db")
    return text


def _zone(value: object) -> str:
    text = _present_text(value)
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        near = did_you_mean(text, zoneinfo.available_timezones())
        raise wrong(f"must be the name of a time zone such as UTC or Europe/Berlin{near}") from None
    return text


def _clock(value: object) -> int:
    match = _CLOCK.fullmatch(_present_text(value))
    if match is None:
        raise wrong("must be a time of day such as 16:30, in quotes")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _percent(value: object) -> int:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise wrong("must be a share of the limit from 1% to 100%, such as 80%")
    return int(match[1])


def _moment(value: object) -> datetime.datetime:
    text = _present_text(value)
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except (ValueError, OverflowError):  # the latter where it lies beyond the years 1 to 9999 in UTC
        raise wrong("must be a date such as 2027-01-01, or a time such as 2027-01-01T12:00:00Z") from None


Item = TypeVar("Item")
Listed: TypeAlias = Annotated[list[Item], Field(min_length=1)]


def one_or_more(value: object) -> list[Any]:
    if value is None:
        raise wrong("is empty")
    if isinstance(value, list) and not value:
        raise wrong("is an empty list; remove it")
    return value if isinstance(value, list) else [value]


def _text_schema(pattern: re.Pattern[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern.pattern})$|\\$\\{{"})


Usd: TypeAlias = Annotated[Decimal, *_numeric(0, 1_000_000)]
Positive: TypeAlias = Annotated[Decimal, *_numeric(0, 1_000_000_000, above=True)]
Weight: TypeAlias = Annotated[Decimal, *_numeric(0, 1_000_000)]
Tokens: TypeAlias = Annotated[int, *_whole(1, 1_000_000_000)]
PerMinute: TypeAlias = Annotated[int, *_whole(1, 1_000_000_000)]
Retries: TypeAlias = Annotated[int, *_whole(0, 10)]
Attempts: TypeAlias = Annotated[int, *_whole(1, 50)]
CaptureBytes: TypeAlias = Annotated[int, *_whole(0, 1024 * 1024)]
InFlight: TypeAlias = Annotated[int, *_whole(1, 1_000_000)]
Threads: TypeAlias = Annotated[int, *_whole(1, 256)]
Parallel: TypeAlias = Annotated[int, *_whole(1, 64)]
LocalContext: TypeAlias = Annotated[int, *_whole(256, 8192)]  # SmolLM2 was trained on 8,192 tokens

_DURATION_SCHEMA = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$|\$\{"}
Duration: TypeAlias = Annotated[float, PlainValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]

_NAMED = "must be a name: letters, digits, spaces and ._:/@+- , the first a letter or digit; at most 128"
Name: TypeAlias = Annotated[str, PlainValidator(_matching(_NAME, _NAMED)), _text_schema(_NAME)]
_MODEL_NAMED = (
    "must be a name: letters, digits and ._:/@+- , the first a letter or digit; or a wildcard like `openai/*`"
)
ModelName: TypeAlias = Annotated[str, PlainValidator(_matching(_MODEL_NAME, _MODEL_NAMED)), _text_schema(_MODEL_NAME)]
_GLOBBED = "must be text, in which `*` stands for anything"
Glob: TypeAlias = Annotated[str, PlainValidator(_matching(_GLOB, _GLOBBED)), _text_schema(_GLOB)]

_STRING = WithJsonSchema({"type": "string"})
Text: TypeAlias = Annotated[str, PlainValidator(_present_text), _STRING]
TextOrMissing: TypeAlias = Annotated[str, PlainValidator(_text), _STRING]  # whoever holds it sleeps while it is missing
Url: TypeAlias = Annotated[str, PlainValidator(_url), _STRING]
Address: TypeAlias = Annotated[str, PlainValidator(_address), _STRING]
Metrics: TypeAlias = Annotated[str, PlainValidator(_metrics), _STRING]
Secret: TypeAlias = Annotated[str, PlainValidator(_secret), _STRING]
ApiVersion: TypeAlias = Annotated[str, PlainValidator(_api_version), _STRING]
LitellmProvider: TypeAlias = Annotated[str, PlainValidator(_litellm_provider), _STRING]
LitellmOption: TypeAlias = Annotated[str, PlainValidator(_litellm_option), _STRING]
HeaderName: TypeAlias = Annotated[str, BeforeValidator(_header_name)]
_PASSED = re.compile(r"(?:/[A-Za-z0-9._~*?-]+)+")
PassedPath: TypeAlias = Annotated[
    str,
    PlainValidator(_matching(_PASSED, "must be a path below /v1, such as /files, /files/* or /files/**")),
    _text_schema(_PASSED),
]
HeaderValue: TypeAlias = Annotated[str, PlainValidator(_header_value), _STRING]
Regex: TypeAlias = Annotated[str, PlainValidator(_regex), WithJsonSchema({"type": "string", "format": "regex"})]
LedgerDsn: TypeAlias = Annotated[
    str, PlainValidator(_ledger), WithJsonSchema({"type": "string", "pattern": r"^sqlite:///|\$\{"})
]
Moment: TypeAlias = Annotated[datetime.datetime, PlainValidator(_moment), _STRING]
Clock: TypeAlias = Annotated[int, PlainValidator(_clock), _text_schema(_CLOCK)]  # seconds since 00:00, up to 24:00
Zone: TypeAlias = Annotated[str, PlainValidator(_zone), _STRING]
Percent: TypeAlias = Annotated[int, PlainValidator(_percent), _text_schema(_PERCENT)]
