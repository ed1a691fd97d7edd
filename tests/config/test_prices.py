"""`price:` of routes.yaml: parts of it over the price book, service tiers, hours, dates; and what is no price."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from gateway.config import load
from gateway.config.types import Config
from gateway.core.pricing import NANO_PER_USD, Price, cost, dollars, price_at, source_of, sources
from gateway.core.usage import More, Usage
from gateway.errors import ConfigError

BOOK = "litellm 1.106.2 price book (2026-10-21)"
FILE = """version: 1
providers: {openai: {base_url: https://api.openai.com/v1}, own: {base_url: http://v/v1}, off: {base_url: "${NOT_SET}"}}
models: {m: {provider: @PROVIDER@, model: @MODEL@, price: @PRICE@}}
"""
LISTED = {
    "@PROVIDER@": "openai",
    "@MODEL@": "gpt-6-astra",
}  # 10 in, 1 cached, 12.5 cache write, 50 out; above 272,000 ...
UNLISTED = {"@PROVIDER@": "own", "@MODEL@": "nobody-knows-it"}


def config_of(price: str, folder: Path, model: dict[str, str], more: str = "") -> Config:
    text = FILE
    for mark, value in {**model, "@PRICE@": price}.items():
        text = text.replace(mark, value)
    (folder / "routes.yaml").write_text(text + more)
    return load(folder / "routes.yaml", {})


def price_of(price: str, folder: Path, model: dict[str, str] = UNLISTED) -> Price:
    found = config_of(price, folder, model).rules.models["m"].price
    assert found is not None
    return found


def problems_of(price: str, folder: Path, model: dict[str, str] = UNLISTED) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as raised:
        config_of(price, folder, model)
    return [(problem.path, problem.message) for problem in raised.value.problems]


def usd(price: Price, usage: Usage) -> str:
    return dollars(cost(usage, price))


def test_a_part_over_the_book(tmp_path: Path) -> None:
    price = price_of("{cached_input: 0.03}", tmp_path, LISTED)
    assert price.rates is not None
    assert price.rates[:5] == tuple(int(each * NANO_PER_USD) for each in (10, 0.03, 12.5, 50, 50))
    assert price.source == f"routes.yaml over {BOOK}"
    assert [tier.above for tier in price.tiers] == [272_000]
    assert price.tiers[0].rates.cached_input == 2 * NANO_PER_USD  # the book's: tiers say what they cost themselves
    assert set(price.services) == {"flex", "priority", "batch", "ultrafast"}


def test_input_and_output_take_nothing_from_the_book(tmp_path: Path) -> None:
    price = price_of("{input: 2, output: 3}", tmp_path, LISTED)
    assert price == Price("routes.yaml", price_of("{input: 2, output: 3}", tmp_path).rates)


def test_tiers_and_services_over_the_book(tmp_path: Path) -> None:
    price = price_of("{tiers: [], service_tiers: {priority: {output: 77}, scale: {input: 1}}}", tmp_path, LISTED)
    assert price.tiers == ()
    priority, scale = price.services["priority"].rates, price.services["scale"].rates
    assert priority is not None
    assert scale is not None
    assert (priority.input, priority.output) == (20 * NANO_PER_USD, 77 * NANO_PER_USD)
    assert (scale.input, scale.output) == (NANO_PER_USD, 50 * NANO_PER_USD)


def test_hours_over_the_book(tmp_path: Path) -> None:
    flash = {"@PROVIDER@": "own", "@MODEL@": "deepseek-v4-flash"}
    assert len(price_of("{reasoning: 2}", tmp_path, flash).hours) == 1
    assert price_of("{hours: []}", tmp_path, flash).hours == ()


SERVED = "{input: 1, cached_input: 0.5, output: 4, audio_input: 10, service_tiers: {flex: {input: 0.4, output: 2}}}"


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(10**6), "1"),
        (Usage(10**6, more=More(audio_input=10**6)), "10"),
        (Usage(0, 10**6), "0.5"),
        (Usage(10**6, more=More("flex")), "0.4"),
        (Usage(0, 10**6, more=More("flex")), "0.5"),  # it does not say: as usual
        (Usage(reasoning=10**6, more=More("flex")), "2"),  # reasoning costs what output does, in flex too
    ],
)
def test_a_service_tier_says_what_differs(usage: Usage, dollars: str, tmp_path: Path) -> None:
    assert usd(price_of(SERVED, tmp_path), usage) == dollars


@pytest.mark.parametrize(
    ("price", "usage", "dollars"),
    [
        ("{input: 1, output: 2, image_output: 30}", Usage(output=10**6, more=More(image_output=5 * 10**5)), "16"),
        ("{input: 1, output: 2, cache_write: 1.25, cache_write_1h: 2}", Usage(0, 0, 2, more=More("", 1)), "0.00000325"),
        ("{per_image: 0.04}", Usage(more=More(images=3)), "0.12"),
        ("{per_second: 0.0001}", Usage(more=More(milliseconds=90_500)), "0.00905"),
        ("{per_character: 0.000015}", Usage(more=More(characters=1000)), "0.015"),
        ("{input: 3, output: 15, per_search: 0.01}", Usage(10**6, more=More(searches=2)), "3.02"),
    ],
)
def test_kinds_and_pieces(price: str, usage: Usage, dollars: str, tmp_path: Path) -> None:
    assert usd(price_of(price, tmp_path), usage) == dollars


NIGHT = "{input: 4, output: 8, hours: [{from: '16:30', to: '00:30', input: 1, output: 2@MORE@}]}"


@pytest.mark.parametrize(
    ("more", "when", "night"),
    [
        ("", "2026-11-25T16:29:59Z", False),
        ("", "2026-11-25T16:30:00Z", True),
        ("", "2026-11-26T00:29:59Z", True),
        ("", "2026-11-26T00:30:00Z", False),
        (", timezone: Asia/Shanghai", "2026-11-25T08:30:00Z", True),
        (", timezone: Asia/Shanghai", "2026-11-25T16:30:00Z", False),  # 00:30 there
        (", timezone: Europe/Berlin", "2026-07-01T14:30:00Z", True),  # summer time
        (", timezone: Europe/Berlin", "2026-12-01T14:30:00Z", False),
        (", timezone: Europe/Berlin", "2026-12-01T15:30:00Z", True),
        # what begins on a Friday belongs to it, also after midnight; 2026-11-27 is one
        (", days: fri", "2026-11-27T00:29:59Z", False),
        (", days: fri", "2026-11-27T16:30:00Z", True),
        (", days: fri", "2026-11-28T00:29:59Z", True),
        (", days: fri", "2026-11-28T16:30:00Z", False),
        (", days: [sun]", "2026-11-30T00:00:00Z", True),  # Monday
    ],
)
def test_hours(more: str, when: str, night: bool, tmp_path: Path) -> None:
    price = price_at(price_of(NIGHT.replace("@MORE@", more), tmp_path), datetime.fromisoformat(when).timestamp())
    assert price is not None
    assert usd(price, Usage(10**6)) == ("1" if night else "4")


@pytest.mark.parametrize(
    ("hours", "label"),
    [
        ("{from: '16:30', to: '00:30'}", "16:30-00:30 UTC"),
        ("{from: '08:00:01', to: '24:00', timezone: Asia/Shanghai}", "08:00:01-24:00 Asia/Shanghai"),
        ("{days: [sat, sun]}", "00:00-24:00 UTC on sat sun"),
    ],
)
def test_the_ledger_s_words(hours: str, label: str, tmp_path: Path) -> None:
    written = f"{{input: 4, output: 8, hours: [{hours[:-1]}, input: 1}}], service_tiers: {{flex: {{input: 2}}}}}}"
    found = [*sources(price_of(written, tmp_path))]
    assert found[0] == "routes.yaml"
    assert set(found) == {"routes.yaml", "routes.yaml, flex", f"routes.yaml, {label}"}


def test_the_first_hours_that_hold(tmp_path: Path) -> None:
    written = "{input: 4, output: 8, hours: [{from: '12:00', to: '13:00', input: 1}, {days: [wed], input: 2}]}"
    price = price_of(written, tmp_path)
    for clock, expected in (("11:59:59", "2"), ("12:00:00", "1"), ("13:00:00", "2")):
        found = price_at(price, datetime.fromisoformat(f"2026-11-25T{clock}Z").timestamp())
        assert found is not None
        assert usd(found, Usage(10**6)) == expected
        assert usd(found, Usage(output=10**6)) == "8"  # they do not say: as at other hours


DATES = (
    "[{input: 9, output: 9}, {from: 2026-06-01, input: 5, output: 5}, "
    "{from: '2027-01-01T12:00:00+02:00', input: 1, output: 1}]"
)


@pytest.mark.parametrize(
    ("when", "dollars", "source"),
    [
        ("1999-01-01T00:00:00Z", "9", "routes.yaml"),
        ("2026-05-31T23:59:59Z", "9", "routes.yaml"),
        ("2026-06-01T00:00:00Z", "5", "routes.yaml, from 2026-06-01"),
        ("2027-01-01T09:59:59Z", "5", "routes.yaml, from 2026-06-01"),
        ("2027-01-01T10:00:00Z", "1", "routes.yaml, from 2027-01-01T10:00:00Z"),
    ],
)
def test_dates(when: str, dollars: str, source: str, tmp_path: Path) -> None:
    price = price_at(price_of(DATES, tmp_path), datetime.fromisoformat(when).timestamp())
    assert price is not None
    assert (usd(price, Usage(10**6)), source_of(Usage(), price)) == (dollars, source)


def test_before_the_first_date_the_book_holds(tmp_path: Path) -> None:
    before, after = (datetime.fromisoformat(f"{day}T00:00Z").timestamp() for day in ("2026-11-30", "2026-12-01"))
    for written in ("{from: 2026-12-01, input: 1, output: 2}", "[{from: 2026-12-01, cached_input: 1}]"):
        price = price_of(written, tmp_path, LISTED)
        first, second = price_at(price, before), price_at(price, after)
        assert first is not None
        assert second is not None
        assert first.source == BOOK
        assert second.source.endswith(", from 2026-12-01")
    unknown = price_of("{from: 2026-12-01, input: 1, output: 2}", tmp_path)
    assert price_at(unknown, before) is None
    assert price_at(unknown, after) is not None


ONE_OF_TWO = (
    "gives only one of `input` and `output`: give both, and nothing is taken from the price book, or neither, and what "
    "you do not give is the book's"
)


@pytest.mark.parametrize(
    ("price", "model", "where", "said"),
    [
        ("{input: 1}", LISTED, "", ONE_OF_TWO),
        ("{output: 1}", UNLISTED, "", ONE_OF_TWO),
        ("[{input: 1, output: 1}, {from: 2027-01-01, input: 1}]", UNLISTED, "[1]", ONE_OF_TWO),
        (
            "{cached_input: 1}",
            UNLISTED,
            "",
            "gives neither `input` nor `output`, and the price book does not know this model: give both",
        ),
        (
            "{cached_input: 1}",
            UNLISTED | {"@MODEL@": "gpt-5, hosting: self"},
            "",
            "gives neither `input` nor `output`, and the price book has none for self-hosted models: give both",
        ),
        ("{}", UNLISTED, "", "gives no price: such as {input: 0.28, output: 0.42} in USD per million tokens"),
        ("[]", UNLISTED, "", "must not be empty"),
        (
            "[{input: 1, output: 1}, {input: 2, output: 2}]",
            UNLISTED,
            "",
            "each price but the first needs `from`, later than that of the one before",
        ),
        (
            "[{from: 2027-01-01, input: 1, output: 1}, {from: 2027-01-01, input: 2, output: 2}]",
            UNLISTED,
            "",
            "each price but the first needs `from`, later than that of the one before",
        ),
        (
            "{input: 1, output: 2, hours: [{from: '12:00', to: '12:00', input: 1}]}",
            UNLISTED,
            ".hours[0]",
            "lasts no time: leave out `from` and `to` for the whole day",
        ),
        (
            "{input: 1, output: 2, hours: [{from: '25:00', input: 1}]}",
            UNLISTED,
            ".hours[0].from",
            "must be a time of day such as 16:30, in quotes",
        ),
        (
            "{input: 1, output: 2, hours: [{form: '12:00', input: 1}]}",
            UNLISTED,
            ".hours[0].form",
            "`form` is not a setting here; did you mean `from`?",
        ),
        (
            "{input: 1, output: 2, hours: [{days: [monday], input: 1}]}",
            UNLISTED,
            ".hours[0].days[0]",
            "must be mon, tue, wed, thu, fri, sat or sun, not `monday`; did you mean `mon`?",
        ),
        (
            "{input: 1, output: 2, hours: [{timezone: Europe/Berln, input: 1}]}",
            UNLISTED,
            ".hours[0].timezone",
            "must be the name of a time zone such as UTC or Europe/Berlin; did you mean `Europe/Berlin`?",
        ),
        (
            "{input: 1, output: 2, service_tiers: {flex: {tiers: [{above: 9, input: 1, output: 1}, "
            "{above: 8, input: 1, output: 1}]}}}",
            UNLISTED,
            ".service_tiers.flex.tiers",
            "`above` must grow from one tier to the next",
        ),
        (
            "[{input: 1, output: 2, cahed_input: 1}]",
            UNLISTED,
            "[0].cahed_input",
            "`cahed_input` is not a setting here; did you mean `cached_input`?",
        ),
        (
            "{input: 1, output: 2, from: tomorrow}",
            UNLISTED,
            ".from",
            "must be a date such as 2027-01-01, or a time such",
        ),
    ],
)
def test_what_is_no_price(price: str, model: dict[str, str], where: str, said: str, tmp_path: Path) -> None:
    found = problems_of(price, tmp_path, model)
    assert [path for path, _ in found] == [f"models.m.price{where}"]
    assert found[0][1].startswith(said)


def test_a_sleeping_model_is_no_problem(tmp_path: Path) -> None:
    """Whose prices would hold is known once its address is."""
    config = config_of("{cached_input: 1}", tmp_path, {"@PROVIDER@": "off", "@MODEL@": "nobody-knows-it"})
    assert config.rules.models["m"].price is None
    assert config.rules.models["m"].disabled == "NOT_SET is not set"


def test_a_price_for_one_token_is_noticed_in_every_list(tmp_path: Path) -> None:
    config = config_of("[{input: 1, output: 2}, {from: 2027-01-01, input: 1e-6, output: 2e-6}]", tmp_path, UNLISTED)
    assert [warning for warning in config.warnings if "per million, not per one" in warning]


def test_what_has_no_price_yet_is_told(tmp_path: Path) -> None:
    warnings = config_of("{from: 2999-01-01, input: 1, output: 2}", tmp_path, UNLISTED).warnings
    assert warnings[1:] == ("model m has no price before 2999-01-01, so its cost is unknown",)
    assert len(config_of("{from: 2020-01-01, input: 1, output: 2}", tmp_path, UNLISTED).warnings) == 1
