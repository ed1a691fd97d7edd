"""`gateway explain`: which models a request would be sent to, in which order, and why. Calls nobody."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from gateway.cli.prices import price_text
from gateway.cli.table import table
from gateway.config import load
from gateway.core.call import Call, Principal
from gateway.core.explain import explain
from gateway.core.health import health_of
from gateway.core.pricing import dollars, price_at
from gateway.core.routing import Plan, Signals
from gateway.core.strategies import expected_cost
from gateway.errors import ConfigError, GatewayError
from gateway.operations import Impossible, decide


def configure(parser: argparse.ArgumentParser) -> None:
    body = parser.add_mutually_exclusive_group(required=True)
    body.add_argument("--prompt", metavar="TEXT", help="the user's message")
    body.add_argument("--request", metavar="FILE", help="a whole request body as JSON; - reads standard input")
    parser.add_argument("--model", metavar="NAME", help="the model to ask for (default: auto, or what --request says)")
    parser.add_argument("--task", metavar="NAME", help="as if the client had named this task")
    parser.add_argument("--tag", action="append", default=[], metavar="NAME", help="a tag; may be repeated")
    parser.add_argument("--header", action="append", default=[], type=_header, metavar="NAME:VALUE",
                        help="another request header; may be repeated")  # fmt: skip
    parser.add_argument("--key", metavar="NAME", help="as the holder of this key")
    parser.add_argument("--json", action="store_true", help="the same for programs")


def run(args: argparse.Namespace) -> int:
    config = load(Path(args.config))
    # As in serving: `weighted` draws anew each time.
    signals = Signals(roll=random.random(), now=time.time())  # noqa: S311 - for weights, not for secrets
    try:
        decision = decide(config, args.key or "", _headers(args), _body(args), signals)
    except (_UsageError, Impossible) as error:
        print(f"gateway explain: {error}", file=sys.stderr)
        return 2
    except ConfigError:
        raise
    except GatewayError as error:
        if args.json:
            about = {"status": error.status, "type": error.type, "code": error.code, "param": error.param}
            print(json.dumps({"error": {"message": error.message, **about}}, indent=2))
        print(f"gateway explain: the answer would be {error.status}: {error.message}", file=sys.stderr)
        return 1
    call, found, principal, _ = decision
    if args.json:
        print(json.dumps(explain(call, found, principal, balances=decision.balance), indent=2))
    else:
        print(_as_text(call, found, principal))
    return 0


class _UsageError(Exception):
    """What was asked makes no sense."""


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:VALUE")
    return name.strip().lower().encode("latin-1", "replace"), value.strip().encode("latin-1", "replace")


def _body(args: argparse.Namespace) -> bytes:
    if args.request is None:
        asked = {"model": args.model or "auto", "messages": [{"role": "user", "content": args.prompt}]}
        return json.dumps(asked).encode()
    if args.model is not None:
        raise _UsageError("--request has a model of its own: leave --model out")
    try:
        return sys.stdin.buffer.read() if args.request == "-" else Path(args.request).read_bytes()
    except OSError as error:
        raise _UsageError(f"{args.request}: {(error.strerror or 'cannot be read').lower()}") from None


def _headers(args: argparse.Namespace) -> list[tuple[bytes, bytes]]:
    headers = list(args.header)
    if args.task:
        headers.append((b"x-gateway-task", args.task.encode("latin-1", "replace")))
    if args.tag:
        headers.append((b"x-gateway-tags", ",".join(args.tag).encode("latin-1", "replace")))
    return headers


def _as_text(call: Call, decision: Plan, principal: Principal) -> str:
    facts = [
        ("model", call.model),
        (
            "input",
            f"about {call.estimated_input} tokens" + (f", with {', '.join(sorted(call.has))}" if call.has else ""),
        ),
        ("key", principal.key or "none"),
        ("task", f"{decision.task.label} ({decision.task.why})"),
        ("route", decision.route),
        ("baseline", _baseline_text(call, decision)),
        (
            "attempts",
            f"{decision.max_attempts} at most, {decision.retries + 1} of one model; {decision.total:g}s in all",
        ),
        ("falls back on", ", ".join(sorted(decision.fallback_on)) or "nothing"),
    ]
    sections = [table(("REQUEST", ""), facts), "Tried in this order\n" + _targets_text(call, decision)]
    for title, what, skipped in (
        ("Models left out", "MODEL", decision.skipped),
        ("Routes passed over", "ROUTE", decision.passed_over),
    ):
        if skipped:
            sections.append(f"{title}\n" + table((what, "BECAUSE"), [(each.what, each.why) for each in skipped]))
    return "\n\n".join(sections)


def _targets_text(call: Call, decision: Plan) -> str:
    rows = [
        (
            str(number),
            target.model.name,
            target.model.provider,
            target.model.hosting,
            _money(expected_cost(target, call)),
            f"{target.why}\nprice: {price_text(target.price)}"
            + (f" ({target.price.source})" if target.price else "")
            + f"\nhealth: {health_of(target, None)}",
        )
        for number, target in enumerate(decision.targets, 1)
    ]
    return table(("#", "MODEL", "PROVIDER", "HOSTING", "EXPECTED COST", "WHY"), rows)


def _baseline_text(call: Call, decision: Plan) -> str:
    if decision.baseline is None:
        return "none"
    first = decision.targets[0]
    compared = first._replace(model=decision.baseline, price=price_at(decision.baseline.price, time.time()))
    return f"{decision.baseline.name}, expected cost {_money(expected_cost(compared, call))}"


def _money(nano: int | None) -> str:
    return "unknown" if nano is None else f"${dollars(nano)}"
