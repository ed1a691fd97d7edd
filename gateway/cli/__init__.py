"""The command line: one file a command, each with `configure(parser)` and `run(args) -> exit code`.

Exit codes: 0 fine, 1 the answer is no, 2 usage. A command's file is imported when it is used, so that `gateway --help`
stays fast. `--config` is added here, to every command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from gateway.errors import ConfigError


class Command(NamedTuple):
    module: str
    help: str


COMMANDS = {
    "serve": Command("gateway.cli.serve", "serve requests"),
    "check": Command("gateway.cli.check", "check routes.yaml; show routes, models and prices"),
    "explain": Command("gateway.cli.explain", "show which models a request would be sent to, and why"),
    "plan": Command("gateway.cli.plan", "show what a changed routes.yaml would have done with past requests"),
    "report": Command("gateway.cli.report", "show what requests have cost and saved"),
    "keys": Command("gateway.cli.keys", "make, list, replace and end keys"),
    "budgets": Command("gateway.cli.budgets", "show budgets; correct or reset what counts as spent"),
    "import": Command("gateway.cli.importing", "make a routes.yaml of another gateway's configuration"),
    "ledger": Command("gateway.cli.ledger", "list and show requests, and what was said where a route keeps that"),
    "doctor": Command("gateway.cli.doctor", "look at all that a gateway needs: what is wrong, and what mends it"),
    "schema": Command("gateway.cli.schema", "print the JSON Schema of routes.yaml, or the OpenAPI description of /v1"),
}


def parser_of(chosen: Collection[str]) -> argparse.ArgumentParser:
    """With what the chosen commands take: their files, and no others, are imported for it."""
    parser = _Parser(prog="gateway", description="An OpenAI-compatible gateway to open and closed models.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sentence = f"{command.help[:1].upper()}{command.help[1:]}."
        subparser = subparsers.add_parser(name, help=command.help, description=sentence)
        subparser.add_argument(
            "--config", default="routes.yaml", metavar="FILE", help="the configuration (default: %(default)s)"
        )
        if name in chosen:
            import_module(command.module).configure(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Usage errors leave through SystemExit(2), as argparse does it."""
    given = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in given if word in COMMANDS), "")
    parser = parser_of({chosen})
    args = parser.parse_args(given)
    try:
        code: int = import_module(COMMANDS[args.command].module).run(args)
        sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        if Path(error.file).absolute() == Path(args.config).absolute() and not Path(args.config).exists():
            print(
                "Say --config FILE, or make the file: the one in the repository works without any key.", file=sys.stderr
            )
        return 1
    except BrokenPipeError:  # the reader (`| head`) has seen enough; Python would complain when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations: a later option that begins alike would break whoever used one."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(**{**given, "allow_abbrev": False})


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from gateway import __version__  # noqa: PLC0415 - reads the installed package's metadata

        print(f"gateway {__version__}")
        parser.exit()
