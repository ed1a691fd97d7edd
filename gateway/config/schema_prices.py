"""The shape of `price:` in routes.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from gateway.config import fields as f
from gateway.config.schema_base import Shape
from gateway.core.hours import DAY

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Speed(Shape):
    input: f.Positive = Field(description="Input tokens per second that the machine reads, over all requests.")
    output: f.Positive = Field(description="Output tokens per second that the machine writes, over all requests.")


class Rates(Shape):
    """What is charged, in USD per million tokens."""

    input: f.Usd | None = Field(default=None, description="USD per million input tokens.")
    output: f.Usd | None = Field(default=None, description="USD per million output tokens.")
    cached_input: f.Usd | None = Field(
        default=None, description="USD per million cached input tokens; `input` by default."
    )
    cache_write: f.Usd | None = Field(
        default=None, description="USD per million tokens cached anew; `input` by default."
    )
    cache_write_1h: f.Usd | None = Field(
        default=None, description="USD per million tokens cached anew for an hour; `cache_write` by default."
    )
    reasoning: f.Usd | None = Field(default=None, description="USD per million reasoning tokens; `output` by default.")
    audio_input: f.Usd | None = Field(
        default=None, description="USD per million input tokens of sound; `input` by default."
    )
    cached_audio_input: f.Usd | None = Field(
        default=None, description="USD per million cached input tokens of sound; `cached_input` by default."
    )
    audio_output: f.Usd | None = Field(
        default=None, description="USD per million output tokens of sound; `output` by default."
    )
    image_input: f.Usd | None = Field(
        default=None, description="USD per million input tokens of images; `input` by default."
    )
    cached_image_input: f.Usd | None = Field(
        default=None, description="USD per million cached input tokens of images; `cached_input` by default."
    )
    image_output: f.Usd | None = Field(
        default=None, description="USD per million output tokens of images; `output` by default."
    )
    per_image: f.Usd | None = Field(default=None, description="USD for each image made.")
    per_second: f.Usd | None = Field(default=None, description="USD for each second of sound, heard or spoken.")
    per_character: f.Usd | None = Field(default=None, description="USD for each character spoken.")
    per_search: f.Usd | None = Field(
        default=None, description="USD for each search that the provider reports, or each unit of ranking."
    )


class TierPrice(Rates):
    above: f.Tokens = Field(description="Holds for the whole request once its input is longer than this many tokens.")
    input: f.Usd = Field(description="USD per million input tokens.")
    output: f.Usd = Field(description="USD per million output tokens.")


class ServicePrice(Rates):
    """What differs from the usual price where the answer reports this `service_tier`."""

    tiers: list[TierPrice] | None = Field(default=None, description="Other prices for long inputs, shortest first.")


class HoursPrice(ServicePrice):
    """What differs from the usual price at some hours. The time a request begins decides."""

    from_: f.Clock | None = Field(
        default=None, alias="from", description="When it begins, such as 16:30. Default 00:00."
    )
    to: f.Clock | None = Field(
        default=None, description="When it is over, such as 00:30, on the next day if that is earlier. Default 24:00."
    )
    timezone: f.Zone = Field(default="UTC", description="Whose clock: UTC (default), Asia/Shanghai, ...")
    days: Annotated[list[Day], BeforeValidator(f.one_or_more, json_schema_input_type=Day | f.Listed[Day])] = Field(
        default=list(DAYS), description="The days on which it begins: mon, tue, wed, thu, fri, sat, sun. Default: all."
    )

    @property
    def span(self) -> tuple[int, int]:
        """Seconds on the clock."""
        return self.from_ or 0, DAY if self.to is None else self.to

    @model_validator(mode="after")
    def _lasts(self) -> HoursPrice:
        begins, ends = self.span
        if begins in (ends, DAY):
            raise f.wrong("lasts no time: leave out `from` and `to` for the whole day")
        return self


class TokenPrice(ServicePrice):
    """What an API charges. With `input` and `output` it is whole; without both, the rest is the price book's."""

    from_: f.Moment | None = Field(
        default=None, alias="from", description="When it comes into force; a date is 00:00 UTC. Always by default."
    )
    service_tiers: dict[f.Name, ServicePrice] | None = Field(
        default=None, description="Other prices where an answer reports a `service_tier`: flex, priority, batch, ..."
    )
    hours: list[HoursPrice] | None = Field(
        default=None, description="Other prices at some hours; the first that holds."
    )

    @model_validator(mode="after")
    def _is_a_price(self) -> TokenPrice:
        if (self.input is None) != (self.output is None):
            raise f.wrong(
                "gives only one of `input` and `output`: give both, and nothing is taken from the price book, or "
                "neither, and what you do not give is the book's"
            )
        if not self.model_fields_set - {"from_"}:
            raise f.wrong("gives no price: such as {input: 0.28, output: 0.42} in USD per million tokens")
        return self


class GpuPrice(Shape):
    """What GPUs cost by the hour; a request is charged its share at the rated speed."""

    gpu_hour_usd: f.Positive = Field(description="USD for one GPU for one hour.")
    gpus: f.Positive = Field(default=Decimal(1), description="How many GPUs serve it together; 0.5 is fine.")
    tokens_per_second: Speed = Field(description="Rated speed of all these GPUs together.")


class MachinePrice(Shape):
    """What a machine costs by the hour; a request is charged its share at the rated speed."""

    usd_per_hour: f.Positive = Field(description="USD for the machine for one hour.")
    tokens_per_second: Speed = Field(description="Rated speed of the machine.")


PRICE_TAG = "price:"


def _price_kind(value: object) -> str:
    """Tags begin with "price:", so that `PRICE_TAG` can be taken out of an error's path."""
    if isinstance(value, str):
        return "price:unmetered"
    if isinstance(value, list):
        return "price:tokens"
    if isinstance(value, Mapping) and not value.keys().isdisjoint({"gpu_hour_usd", "gpus"}):
        return "price:gpu"
    if isinstance(value, Mapping) and not value.keys().isdisjoint({"usd_per_hour", "tokens_per_second"}):
        return "price:machine"
    return "price:token"


def _in_order(prices: list[TokenPrice]) -> list[TokenPrice]:
    moments = [price.from_ for price in prices]
    later = moments[1:] if moments[0] is None else moments
    if None in later or any(after <= before for before, after in pairwise(filter(None, later))):
        raise f.wrong("each price but the first needs `from`, later than that of the one before")
    return prices


AnyPrice = Annotated[
    Annotated[TokenPrice, Tag("price:token")]
    | Annotated[GpuPrice, Tag("price:gpu")]
    | Annotated[MachinePrice, Tag("price:machine")]
    | Annotated[list[TokenPrice], Field(min_length=1), AfterValidator(_in_order), Tag("price:tokens")]
    | Annotated[Literal["unmetered"], Tag("price:unmetered")],
    Discriminator(_price_kind),
]
