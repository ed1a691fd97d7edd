"""The shape of what guards money and traffic in routes.yaml: `budgets`, `limits`, `keys`, `webhooks`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.config import fields as f
from gateway.config.schema_base import Globs, Match, Names, Shape

Action = Literal["alert", "prefer_self_hosted", "self_hosted_only", "reject"]
Event = Literal["budget_threshold", "breaker_opened", "config_rejected"]
EVENTS: tuple[Event, ...] = ("budget_threshold", "breaker_opened", "config_rejected")


class Spending(Shape):
    """A limit on what may be spent in a window of the calendar."""

    limit_usd: f.Usd = Field(description="USD in each window. No call is let in that might go beyond it.")
    window: Literal["hour", "day", "week", "month", "total"] = Field(
        default="month", description="When it starts anew, by the calendar of `timezone`; `total`: never."
    )
    timezone: f.Zone = Field(default="UTC", description="Whose calendar: UTC (default), Europe/Berlin, ...")
    counts: Literal["api", "all"] = Field(
        default="api", description="`api`: money that leaves. `all`: self-hosted models at their own rate too."
    )
    at: dict[f.Percent, Action] | None = Field(
        default=None,
        description="What happens when so much of it is spent: `alert`, `prefer_self_hosted`, `self_hosted_only` or "
        "`reject`, which is the default at 100%.",
    )


class Budget(Spending):
    """What may be spent by requests that match, together or for each `per`."""

    name: f.Name = Field(description="Shown in errors, metrics and reports.")
    match: Match | None = Field(default=None, description="What requests it is for; all where not given.")
    per: Literal["key", "team", "user", "task", "route", "model", "provider"] | None = Field(
        default=None, description="A budget of this size for each of them, instead of one for all."
    )


class Ceilings(Shape):
    """Limits on traffic."""

    requests_per_minute: f.PerMinute | None = Field(default=None, description="Requests in any 60 seconds.")
    tokens_per_minute: f.PerMinute | None = Field(
        default=None, description="Tokens of input and output in any 60 seconds."
    )
    max_in_flight: f.InFlight | None = Field(default=None, description="Requests under way at a time.")


class Limit(Ceilings):
    """A limit on traffic of requests that match, together or for each `per`."""

    match: Match | None = Field(default=None, description="What requests it is for; all where not given.")
    per: Literal["key", "team", "user", "task"] | None = Field(
        default=None, description="A limit for each of them, instead of one for all."
    )


class KeySettings(Shape):
    """What a key is called and may do; also how `gateway keys create` keeps it."""

    name: f.Name = Field(description="Shown in metrics and the ledger; never the value.")
    team: f.Name | None = Field(default=None, description="For routes, metrics and reports.")
    user: f.Name | None = Field(default=None, description="Recorded with each request.")
    allow: Globs | None = Field(default=None, description="Model names it may ask for; globs. All by default.")
    expires: f.Moment | None = Field(default=None, description="From then on it opens nothing; a date is 00:00 UTC.")
    tags: Names | None = Field(default=None, description="Added to each of its requests.")
    budget: Spending | None = Field(default=None, description="What it may spend.")
    limits: Ceilings | None = Field(default=None, description="How much traffic it may make.")


class Key(KeySettings):
    """A key that clients show as `Authorization: Bearer`."""

    value: f.Secret = Field(description="The secret, at least 16 characters. Write ${NAME}; only its hash is kept.")


class Webhook(Shape):
    """Somebody to tell when something happens."""

    url: f.Address = Field(description="Where to POST the event as JSON. It sleeps while its ${NAME} is not set.")
    secret: f.Secret | None = Field(
        default=None, description="Signs each delivery (standardwebhooks.com). Write ${NAME}."
    )
    events: Annotated[list[Event], BeforeValidator(f.one_or_more, json_schema_input_type=Event | f.Listed[Event])] = (
        Field(default=list(EVENTS), description="Which events; all by default.")
    )
