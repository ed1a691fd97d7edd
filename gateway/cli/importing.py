"""`gateway import litellm config.yaml`: another gateway's configuration as a routes.yaml."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gateway.config.litellm_import import Remark, convert
from gateway.config.litellm_import.remarks import DIFFERS, LOST
from gateway.config.load import load_yaml


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=["litellm"], help="whose configuration it is")
    parser.add_argument("file", help="config.yaml of a LiteLLM proxy")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the routes.yaml there; it must not exist yet")
    parser.add_argument("--json", action="store_true", help="the YAML and the remarks for programs")


def run(args: argparse.Namespace) -> int:
    """YAML on stdout, remarks on stderr. 1 where it is no such file, or OUTPUT exists. Raises ConfigError."""
    try:
        found = convert(load_yaml(Path(args.file)))
    except ValueError as error:
        print(f"{args.file}: {error}", file=sys.stderr)
        return 1
    if args.output and not _written(Path(args.output), found.yaml):
        return 1
    if args.json:
        print(json.dumps({"yaml": found.yaml, "remarks": [each._asdict() for each in found.remarks]}, indent=2))
        return 0
    if not args.output:
        print(found.yaml, end="")
    _say(found.remarks)
    return 0


def _written(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"{path} exists already and is left as it is; choose another name", file=sys.stderr)
        return False
    except OSError as error:
        print(f"{path} cannot be written: {error}", file=sys.stderr)
        return False
    return True


def _say(remarks: tuple[Remark, ...]) -> None:
    for kind, title in ((DIFFERS, "The meaning differs"), (LOST, "There is no equivalent")):
        if found := [each for each in remarks if each.kind == kind]:
            print(f"{title}:", file=sys.stderr)
            for each in found:
                print(f"  {each.path}: {each.text}", file=sys.stderr)
