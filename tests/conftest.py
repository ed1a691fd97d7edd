"""What holds for every test of the main run."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """docs/compatibility.md says that a marked test ran: in CI it may not be skipped."""
    report = yield
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("compatible"):
        report.outcome = "failed"
    return report
