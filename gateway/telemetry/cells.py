"""What a series holds, and how an observation is added to it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from gateway.core.record import AttemptStages, Stages
from gateway.telemetry import families
from gateway.telemetry.families import NANO, Family

Cell = list[int]
"""[value], or of a histogram the counts by bucket (not cumulative, the last is +Inf) and then the sum."""


def add(cell: Cell, bounds: tuple[float, ...], seconds: float) -> None:
    """One observation of a histogram. A bucket holds what is less or equal to its bound.

    A negative one counts as zero: OpenMetrics forbids a negative sum, and one would cost the whole scrape.
    """
    if seconds < 0:
        seconds = 0.0
    cell[bisect_left(bounds, seconds)] += 1
    cell[-1] += round(seconds * NANO)


def sum_up(cell: Cell, values: Cell) -> None:
    for i, value in enumerate(values):
        cell[i] += value


class StageCells:
    """Of gateway_stage_seconds; `cell`: the one of a family and its label."""

    def __init__(self, cell: Callable[[Family, str], Cell]) -> None:
        self._of_request = [cell(families.STAGES, stage) for stage in Stages._fields]
        self._of_attempt = [cell(families.STAGES, stage) for stage in AttemptStages._fields]

    def add(self, stages: Stages | AttemptStages) -> None:
        cells = self._of_request if type(stages) is Stages else self._of_attempt
        for cell, seconds in zip(cells, stages, strict=True):
            if seconds is not None:
                add(cell, families.STAGE_SECONDS, seconds)
