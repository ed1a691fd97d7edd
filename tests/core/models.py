"""Models for tests of conversations that stay where they are."""

from __future__ import annotations

from gateway.core.rules import Model, Replica

PAIR = (Replica("x", 1.0, "two@x"), Replica("y", 1.0, "two@y"))
MODELS = {
    model.name: model
    for model in (
        Model("a", "p", "A"),
        Model("b", "p", "B"),
        Model("thinks", "p", "T", supports=frozenset({"tools", "reasoning"})),
        Model("two", "p", "W", replicas=PAIR),
    )
}
