"""What shapes of routes.yaml have in common: strictness, lists of names, and `match`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.config import fields as f

Capability = Literal["images", "audio", "tools", "json_schema"]
Capabilities = Annotated[
    list[Capability], BeforeValidator(f.one_or_more, json_schema_input_type=Capability | f.Listed[Capability])
]
Globs = Annotated[list[f.Glob], BeforeValidator(f.one_or_more, json_schema_input_type=f.Glob | f.Listed[f.Glob])]
Names = Annotated[list[f.Name], BeforeValidator(f.one_or_more, json_schema_input_type=f.Name | f.Listed[f.Name])]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Match(Shape):
    """All that is given must hold; a list means any of its values; `*` in names stands for anything."""

    model: Globs | None = Field(default=None, description="The requested model.")
    task: Globs | None = Field(default=None, description="The task, `default` where none was recognised.")
    key: Globs | None = Field(default=None, description="The name of the caller's key.")
    team: Globs | None = Field(default=None, description="The team of the caller's key.")
    tag: Globs | None = Field(default=None, description="A tag of the request or its key.")
    has: Capabilities | None = Field(default=None, description="What the request holds: any of these.")
    min_input_tokens: f.Tokens | None = Field(default=None, description="An estimated input at least this long.")
    max_input_tokens: f.Tokens | None = Field(default=None, description="An estimated input at most this long.")
