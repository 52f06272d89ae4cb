"""Fixtures shared by all tests: where the real data is, and what was skipped for want of a GPU."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import retrieval

# Where a machine has other work, any example may be held up: by default 200 ms fail it, and so does drawing slowly.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_report_header() -> str:
    """Say which copy is under test: the source tree or an installed wheel."""
    return f"retrieval: {Path(retrieval.__file__).parent}"


@pytest.fixture(scope="session")
def shared_data():
    """Path of a named real data set, or a skip where the data is not beside the checkout."""
    root = Path(os.environ.get("RETRIEVAL_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"needs the data set {name} under RETRIEVAL_DATA")
        return path

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests, visibly, where there is no GPU."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_cuda():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_terminal_summary(terminalreporter) -> None:
    """Count the GPU tests that did not run."""
    skipped = sum("CUDA device" in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"GPU tests skipped: {skipped}")
