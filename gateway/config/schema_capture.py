"""The shape of `capture:` in routes.yaml: whether a route keeps what was said."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from gateway.config import fields as f
from gateway.config.schema_base import Shape
from gateway.core.capture import Capture as Rule

DEFAULT = Rule()


class Capture(Shape):
    """Prompts and answers are kept in the ledger, without what looks like a key or secret."""

    max_bytes: f.CaptureBytes = Field(
        default=DEFAULT.max_bytes,
        description="Of each prompt and each answer; the middle of a longer one is left out.",
    )
    keep: f.Duration = Field(default=DEFAULT.keep, description="How long: 7d by default. Then it is deleted.")


def _written(value: object) -> object:
    return {} if value is True else {"max_bytes": 0} if value is False else value


OnOrOff = Annotated[Capture, BeforeValidator(_written, json_schema_input_type=bool | Capture)]


def rule(written: Capture | None) -> Rule | None:
    """None: nothing is kept."""
    return Rule(written.max_bytes, written.keep) if written is not None and written.max_bytes else None
