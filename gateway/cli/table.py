"""Plain text tables: aligned columns, two spaces between them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 120


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell. The last one is free to be long: it is wrapped under itself."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    indent = sum(widths) + 2 * len(widths) + 2
    text = []
    for line in lines:
        start = "  " + "".join(f"{cell:<{width}}  " for cell, width in zip(line, widths, strict=False))
        last = [piece for part in line[-1].splitlines() for piece in _wrap(part, max(WIDTH - indent, 30))]
        text.append((start + f"\n{' ' * indent}".join(last or [""])).rstrip())
    return "\n".join(text)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
