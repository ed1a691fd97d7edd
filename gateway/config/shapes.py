"""Data against the schema's models: pydantic's findings in words for people, with the path they are about."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.interpolate import FromEnvironment
from gateway.config.problems import Data, Path, Problems, did_you_mean, nearest
from gateway.config.schema import RoutesFile
from gateway.config.schema_prices import PRICE_TAG

_KEY = "[key]"  # pydantic's mark for "the key itself, not its value"
_WORDS = {
    "missing": "is required",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "string_type": "must be text; put it in quotes",
    "too_short": "must not be empty",
}
_OPTIONAL_SECTIONS = frozenset({"defaults", "tasks", "routes", "budgets", "limits", "webhooks", "stores"})


def validated(data: Data, problems: Problems) -> RoutesFile | None:
    """None where the shape is wrong; then at least one problem was added."""
    if not isinstance(data, dict):
        problems.add((), "the file must be a mapping that starts with `version: 1`")
        return None
    _empty_values(data, problems)
    try:
        return RoutesFile.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        meant = {near for details in found if (near := _misspelt(details))}
        for details in found:
            if not (details["type"] == "missing" and details["loc"] in meant):  # it is there under a wrong name
                _explain(details, problems)
        return None


def _misspelt(details: ErrorDetails) -> tuple[str | int, ...] | None:
    """Where the setting would be that an unknown key was probably meant to be."""
    if details["type"] != "extra_forbidden":
        return None
    *parent, key = details["loc"]
    near = nearest(str(key), _fields_at(_path(details)[:-1], details))
    return (*parent, near) if near else None


def _empty_values(data: dict[str, Any], problems: Problems) -> None:
    """`name:` with nothing after it is a mistake, except a section whose entries are all commented out."""
    for section in [name for name, value in data.items() if value is None and name in _OPTIONAL_SECTIONS]:
        del data[section]
    if "keys" in data and data["keys"] is None:
        data["keys"] = []  # declared: nobody is anonymous
    pending: list[tuple[Path, Any]] = [((), data)]
    while pending:
        path, value = pending.pop()
        if value is None:
            problems.add(path, "is empty: give it a value or remove it")
        elif isinstance(value, dict):
            pending += [((*path, key), inner) for key, inner in value.items() if key != "set"]  # null may be sent
        elif isinstance(value, list):
            pending += [((*path, index), inner) for index, inner in enumerate(value)]


def _explain(details: ErrorDetails, problems: Problems) -> None:
    kind = details["type"]
    path = _path(details)
    if kind == "extra_forbidden":
        known = did_you_mean(str(path[-1]), _fields_at(path[:-1], details))
        problems.add(path, f"`{path[-1]}` is not a setting here{known}")
        return
    if kind != "missing":
        while path and path not in problems.lines:  # `use: [qwen]` is validated as `use: [{model: qwen}]`
            path = path[:-1]
    problems.add(path, _sentence(details))


def _path(details: ErrorDetails) -> Path:
    return tuple(part for part in details["loc"] if part != _KEY and not str(part).startswith(PRICE_TAG))


def _sentence(details: ErrorDetails) -> str:
    kind = details["type"]
    if kind == "wrong":
        return str(details["ctx"]["message"])
    if details["loc"][-1:] in {("price:token",), ("price:unmetered",)}:
        return "must be `unmetered`, or a mapping such as {input: 0.28, output: 0.42} in USD per million tokens"
    if kind == "literal_error":
        return _choice(details["input"], str(details["ctx"]["expected"]))
    return _WORDS.get(kind, details["msg"])


def _choice(value: object, expected: str) -> str:
    options = [option.strip("'") for option in expected.replace(" or ", ", ").split(", ")]
    wanted = f"must be {expected.replace(chr(39), '')}"
    if isinstance(value, str) and not isinstance(value, FromEnvironment) and len(value) <= 60:
        if value in options:
            return f"{wanted}; leave the quotes out"
        return f"{wanted}, not `{value}`" + (did_you_mean(value, options) if nearest(value, options) else "")
    return wanted


def _fields_at(path: Path, details: ErrorDetails) -> list[str]:
    """The names of the settings that may stand at `path`; `details` says which of the prices is meant."""
    tag = next((str(part) for part in details["loc"] if str(part).startswith(PRICE_TAG)), "")
    models: list[type[BaseModel]] = [RoutesFile]
    for part in path:
        inner = []
        for model in models:
            field = model.model_fields.get(part) if isinstance(part, str) else None
            inner += _models_in(field.annotation, tag) if field else [model]
        models = inner
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})


def _models_in(annotation: Data, tag: str) -> list[type[BaseModel]]:
    """The settings models inside an annotation such as `dict[Name, Provider] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [model for inner in get_args(annotation) for model in _models_in(inner, tag)]
    if tag and len(found) > 1:
        wanted = tag.removeprefix(PRICE_TAG).removesuffix("s")  # `tokens` is a list of the kind `token`
        found = [model for model in found if model.__name__.lower().startswith(wanted)] or found
    return found
