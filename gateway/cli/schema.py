"""`gateway schema`: the JSON Schema that editors use; checked in as routes.schema.json."""

from __future__ import annotations

import argparse
import json

from gateway.config.schema import json_schema


def configure(parser: argparse.ArgumentParser) -> None:
    """Takes nothing of its own."""


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - every command's signature
    print(json.dumps(json_schema(), indent=2))
    return 0
