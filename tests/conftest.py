"""What holds for every test of the main run."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# Not how fast: a busy machine pauses at will, in the middle of an example or of making one up.
settings.register_profile(
    "any-machine", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """docs/compatibility.md says that a marked test ran: in CI it may not be skipped."""
    report = yield
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("compatible"):
        report.outcome = "failed"
    return report
