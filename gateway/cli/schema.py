"""`gateway schema`: the JSON Schema that editors use, checked in as routes.schema.json; or the API's description."""

from __future__ import annotations

import argparse
import json

from gateway.config.schema import json_schema


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--openapi", action="store_true", help="print the OpenAPI description of /v1 instead (docs/openapi.json)"
    )


def run(args: argparse.Namespace) -> int:
    if args.openapi:
        from gateway.server.openapi import document  # noqa: PLC0415 - the server is not needed for the schema

        print(json.dumps(document(), indent=2))
    else:
        print(json.dumps(json_schema(), indent=2))
    return 0
