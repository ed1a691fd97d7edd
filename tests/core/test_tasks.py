"""Which task a call is, and why."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.core.call import Endpoint, parse
from gateway.core.tasks import CLASSIFIERS, Condition, Task, TaskRule, classify
from gateway.wire import CODEC

RULES = (
    TaskRule("vision", (Condition(has=frozenset({"images"}), text="has images"),)),
    TaskRule(
        "support",
        (
            Condition(header={"x-app": "helpdesk"}, text="header x-app is helpdesk"),
            Condition(system_prompt=re.compile("(?i)customer service"), text="system_prompt matches ..."),
        ),
    ),
    TaskRule(
        "coding",
        (Condition(has=frozenset({"tools", "json_schema"}), last_message=re.compile("refactor"), text="tools, text"),),
    ),
    TaskRule("long", (Condition(min_input_tokens=100, text="input of at least 100 tokens"),)),
    TaskRule("mini", (Condition(model=("*-mini", "tiny"), text="model is *-mini or tiny"),)),
    TaskRule("never", ()),
)
KNOWN = frozenset({"billing"})


def classified(headers: dict[str, str] | None = None, text: str = "hi", **members: Any) -> Task:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **members}
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return classify(parse(Endpoint.CHAT, raw, json.dumps(body).encode(), CODEC), RULES, known=KNOWN)


PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]
POLITE = [{"role": "system", "content": "You do CUSTOMER SERVICE."}, {"role": "user", "content": "secret"}]
TOOLS = {"tools": [{"type": "function"}]}
SCHEMA = {"response_format": {"type": "json_schema"}}


@pytest.mark.parametrize(
    ("given", "label", "why"),
    [
        ({}, "default", "no rule holds"),
        ({"headers": {"x-gateway-task": "coding"}}, "coding", "header x-gateway-task"),
        ({"metadata": {"task": "coding"}}, "coding", "metadata.task"),
        ({"headers": {"x-gateway-task": "default"}, "messages": PICTURE}, "default", "header x-gateway-task"),
        ({"headers": {"x-gateway-task": "billing"}}, "billing", "header x-gateway-task"),
        ({"headers": {"x-gateway-task": "never"}}, "never", "header x-gateway-task"),
        (
            {"headers": {"x-gateway-task": "secret"}, "messages": PICTURE},
            "vision",
            "rule vision[0]: has images; header x-gateway-task names no known task",
        ),
        ({"metadata": {"task": "secret"}}, "default", "no rule holds; metadata.task names no known task"),
        ({"messages": PICTURE, "headers": {"x-app": "helpdesk"}}, "vision", "rule vision[0]: has images"),
        ({"headers": {"x-app": "helpdesk"}}, "support", "rule support[0]: header x-app is helpdesk"),
        ({"headers": {"x-app": "Helpdesk"}}, "default", "no rule holds"),
        ({"messages": POLITE}, "support", "rule support[1]: system_prompt matches ..."),
        ({"text": "refactor it", **TOOLS, **SCHEMA}, "coding", "rule coding[0]: tools, text"),
        ({"text": "refactor it", **TOOLS}, "default", "no rule holds"),
        ({"text": "write it", **TOOLS, **SCHEMA}, "default", "no rule holds"),
        ({"text": "x" * 397}, "long", "rule long[0]: input of at least 100 tokens"),
        ({"text": "x" * 396}, "default", "no rule holds"),
        ({"model": "gpt-5-mini"}, "mini", "rule mini[0]: model is *-mini or tiny"),
        ({"model": "tiny"}, "mini", "rule mini[0]: model is *-mini or tiny"),
    ],
)
def test_classify(given: dict[str, Any], label: str, why: str) -> None:
    assert classified(**given) == Task(label, 1.0, why)


def test_the_clients_word_comes_first() -> None:
    assert list(CLASSIFIERS) == ["client", "rules"]
