"""Readers of what an option is given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from gateway.server.listener import split_address

T = TypeVar("T")


def reader(read: Callable[[str], T]) -> Callable[[str], T]:
    """`read`, whose ValueError the user is told in its own words: argparse would say no more than "invalid value"."""

    def telling(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return telling


@reader
def host_and_port(text: str) -> str:
    """HOST:PORT as it came; an error where it is none."""
    split_address(text)
    return text
