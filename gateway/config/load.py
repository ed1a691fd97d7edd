"""routes.yaml -> Config, or every problem it has."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from gateway.config.build import Source, build
from gateway.config.consistency import check
from gateway.config.interpolate import Interpolation
from gateway.config.later import take_out
from gateway.config.problems import Data, Problems
from gateway.config.shapes import validated
from gateway.config.types import Config
from gateway.config.yamlfile import MAX_BYTES, Document, read
from gateway.errors import WHOLE_FILE, ConfigError


def load(path: Path, environ: Mapping[str, str] | None = None, *, content: bytes | None = None) -> Config:
    """Reads and checks the whole file; `environ` is this process's environment where not given.

    `content`: what the file held when somebody else read it, so that several processes agree on it.

    Raises ConfigError with all problems at once, each with its line and path.
    """
    problems = Problems()
    raw = _bytes(path, problems) if content is None else content
    document = _document(path, raw, problems)
    problems.lines = document.lines
    interpolation = Interpolation(os.environ if environ is None else environ, path.absolute().parent, problems)
    data = interpolation.fill(document.data)
    take_out(data, problems)
    check(data, problems)
    file = validated(data, problems)
    if file is None or problems.found:
        raise ConfigError(str(path), problems.found)
    config = build(file, Source(path.absolute(), _hash(raw, interpolation.read)), problems)
    if problems.found:
        raise ConfigError(str(path), problems.found)
    return config


def load_yaml(path: Path) -> Data:
    """Any YAML file, read as routes.yaml is: bounded, with its problems as a ConfigError."""
    problems = Problems()
    data = _document(path, _bytes(path, problems), problems).data
    if problems.found:
        raise ConfigError(str(path), problems.found)
    return data


def _document(path: Path, raw: bytes, problems: Problems) -> Document:
    text = _text(raw, problems)
    document = None if problems.found else read(text, problems)
    if document is None:
        raise ConfigError(str(path), problems.found)
    return document


def _bytes(path: Path, problems: Problems) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        problems.at_line(0, WHOLE_FILE, f"cannot be read: {(error.strerror or 'error').lower()}")
        return b""
    if len(raw) > MAX_BYTES:
        problems.at_line(0, WHOLE_FILE, f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
    return raw


def _text(raw: bytes, problems: Problems) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.at_line(line, WHOLE_FILE, f"is not UTF-8 text (byte {raw[error.start]:#04x})")
        return ""


def _hash(raw: bytes, read: Mapping[str, str]) -> str:
    """12 hex digits that change with the file and with what it reads from the environment."""
    digest = hashlib.sha256(raw)
    for name in sorted(read):
        digest.update(f"\0{name}\0{read[name]}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]
