"""Fixtures shared by all tests: where the real data is, and what was left out for want of a GPU or of a package.

In a light installation, without torch, a test file is left out where its imports need a missing package, and a test is
skipped where it or a helper of `tests/` imports one. Where the library itself imports one, the test fails.
"""

import os
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import retrieval
from index.device import faiss_problem, load_faiss
from index.kinds import KINDS
from index.spec import IndexSpec, find_engine_problem

IS_LIGHT = find_spec("torch") is None
LEFT_OUT = Counter()  # test files by the package that they need

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


@pytest.fixture(autouse=True, scope="session")
def cache_of_exports(tmp_path_factory):
    """Keep the user's cache as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRIEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def no_export(monkeypatch):
    """Commands run models by torch, where exporting them would take longer than the test."""
    monkeypatch.setenv("RETRIEVAL_ENGINE", "torch")


@pytest.fixture
def no_faiss(monkeypatch):
    """A Python in which FAISS is not installed."""
    load_faiss.cache_clear()
    monkeypatch.setitem(sys.modules, "faiss", None)
    yield
    load_faiss.cache_clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests, visibly, that need a GPU or FAISS where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_cuda():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    for item in items:
        if faiss_problem() and (item.get_closest_marker("faiss") or _is_run_with_faiss(item)):
            item.add_marker(pytest.mark.skip(reason="needs FAISS"))


def _is_run_with_faiss(item: pytest.Item) -> bool:
    """Whether a parameter of the test is a kind of index whose engine is missing, or a spec of one."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    kinds = [value.kind if isinstance(value, IndexSpec) else value for value in values]
    return any(isinstance(kind, str) and kind in KINDS and find_engine_problem(kind) for kind in kinds)


def _has_cuda() -> bool:
    if IS_LIGHT:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Leave out a file whose import needs a package that a light installation lacks."""
    report = yield
    package = _missing_package(report.call.excinfo.value.__cause__) if report.failed else ""
    if package and isinstance(collector, pytest.Module):
        LEFT_OUT[package] += 1
        report.outcome, report.longrepr, report.result = "passed", None, []
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo):
    """Skip a test that imports such a package, itself or by a helper of this folder."""
    report = yield
    package = _missing_package(call.excinfo.value) if report.failed and call.excinfo else ""
    if package and Path(call.excinfo.traceback[-1].path).is_relative_to(Path(__file__).parent):
        report.outcome, report.longrepr = "skipped", (*report.location[:2], f"needs {package}")
    return report


def _missing_package(error: BaseException | None) -> str:
    """Return the package for want of which an import failed, in a light installation only."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    is_missing = name not in {"", "index", "retrieval"} and find_spec(name) is None
    return name if IS_LIGHT and is_missing else ""


def pytest_terminal_summary(terminalreporter) -> None:
    """Count the tests and files that did not run."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    terminalreporter.write_line(f"GPU tests skipped: {sum('CUDA device' in reason for reason in reasons)}")
    if IS_LIGHT:
        files = ", ".join(f"{count} need {package}" for package, count in LEFT_OUT.most_common())
        terminalreporter.write_line(f"Light installation: {LEFT_OUT.total()} test files are left out ({files})")
