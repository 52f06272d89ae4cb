"""A spec is validated data; the choice says why; the estimated size is the real one within a tenth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import (
    clustered_rows,
    one_thread,  # noqa: F401 - pytest uses it
)

from index.errors import SpecError
from index.spec import IndexSpec, choose_spec, choose_spec_for_machine, estimate_bytes

EFFORTS = st.floats(0, 1)
MIB = 1 << 20


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kind": "flat"}, "'flat'. Use one of exact, hnsw, ivf, ivfpq"),
        ({"effort": 1.1}, "effort is 1.1"),
        ({"effort": "high"}, "effort is 'high'"),
        ({"effort": float("nan")}, "effort is nan"),
        ({"links": 1}, "links is 1"),
        ({"lists": -1}, "lists is -1"),
        ({"codes": -1}, "codes is -1"),
        ({"code_bits": 9}, "code_bits is 9"),
        ({"build_effort": 0}, "build_effort is 0"),
    ],
)
def test_spec_refuses_impossible_sizes_and_names_the_value(wrong, named):
    with pytest.raises(SpecError, match=named):
        IndexSpec(**wrong)


def test_codes_must_divide_the_dimension():
    with pytest.raises(SpecError, match="7 codes do not divide the dimension 16"):
        IndexSpec("ivfpq", codes=7).create_kind().choose_sizes(1000, 16)


def test_open_lists_are_chosen_by_count_and_others_are_kept():
    kind = IndexSpec("ivf").create_kind()
    assert [kind.choose_sizes(count, 512).lists for count in (1_000_000, 100, 0)] == [4000, 2, 1]
    assert kind.choose_sizes(100_000_000, 512, device="cuda").lists == 2048
    assert IndexSpec("ivf", lists=7).create_kind().choose_sizes(1_000_000, 512).lists == 7


@pytest.mark.parametrize(
    ("dimension", "codes"),
    [(512, 64), (384, 96), (768, 96), (256, 64), (640, 64), (896, 56), (32, 8), (4, 1), (3, 3), (509, 509)],
)
def test_open_codes_divide_the_dimension_and_suit_a_gpu_where_they_can(dimension, codes):
    assert IndexSpec("ivfpq").create_kind().choose_sizes(10_000, dimension).codes == codes


@given(EFFORTS, EFFORTS)
def test_more_effort_never_means_less_work(one, other):
    less, more = sorted([one, other])
    ivfpq, hnsw = IndexSpec("ivfpq", lists=300, codes=4).create_kind(), IndexSpec("hnsw").create_kind()
    assert ivfpq.nprobe(less) <= ivfpq.nprobe(more)
    assert ivfpq.depth(less, 10) <= ivfpq.depth(more, 10)
    assert hnsw.ef_search(less, 10) <= hnsw.ef_search(more, 10)


def test_effort_sets_nprobe_ef_search_and_depth():
    ivfpq, hnsw = IndexSpec("ivfpq", lists=400, codes=4).create_kind(), IndexSpec("hnsw").create_kind()
    assert [ivfpq.nprobe(effort) for effort in (0, 0.5, 1)] == [1, 20, 400]
    assert [ivfpq.depth(effort, 10) for effort in (0, 0.5, 1)] == [40, 160, 640]
    assert [hnsw.ef_search(effort, 10) for effort in (0, 0.5, 1)] == [16, 256, 4096]
    assert hnsw.ef_search(0, 50) == 50


def test_auto_takes_exact_for_few_rows_and_hnsw_for_many():
    assert choose_spec(100_000, 512).kind == "exact"
    assert choose_spec(10_000_000, 512).kind == "hnsw"


def test_auto_takes_ivf_then_ivfpq_then_exact_as_memory_shrinks():
    graph = estimate_bytes(IndexSpec("hnsw"), 1_000_000, 512)
    lists = estimate_bytes(IndexSpec("ivf"), 1_000_000, 512)
    codes = estimate_bytes(IndexSpec("ivfpq"), 1_000_000, 512)
    assert graph > lists > codes
    kinds = [choose_spec(1_000_000, 512, memory=memory).kind for memory in (graph, graph - 1, lists - 1, codes - 1, 0)]
    assert kinds == ["hnsw", "ivf", "ivfpq", "exact", "exact"]


@pytest.mark.faiss
def test_machine_gives_an_index_half_of_its_memory(monkeypatch):
    monkeypatch.setattr("index.spec.os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 20}.__getitem__)
    assert choose_spec_for_machine(1_000_000, 512) == choose_spec(1_000_000, 512, memory=2048 * MIB)
    assert choose_spec_for_machine(1_000_000, 512).kind == "ivf"
    assert choose_spec_for_machine(100_000_000, 512, device="cuda").kind == "ivf"


def test_gpu_holds_no_hnsw_and_must_hold_the_rows_of_exact():
    assert choose_spec(1_000_000, 512, device="cuda").kind == "exact"
    assert choose_spec(1_000_000, 512, memory=1500 * MIB, device="cuda").kind == "ivfpq"
    assert choose_spec(100_000_000, 512, device="cuda").kind == "ivf"
    with pytest.raises(SpecError, match="1 MiB of the GPU"):
        choose_spec(1_000_000, 512, memory=MIB, device="cuda")


def test_choice_says_what_and_why_with_its_numbers():
    assert choose_spec(1000, 64) == IndexSpec(
        "exact", reason="reading all 1,000 rows of dimension 64 takes milliseconds and misses none"
    )
    chosen = choose_spec(1_000_000, 512, memory=4096 * MIB)
    assert chosen.kind == "hnsw"
    assert chosen.reason.startswith("reading all 1,000,000 rows of dimension 512 for each query is slow")
    assert "of 4,096 MiB" in chosen.reason
    assert choose_spec(1_000_000, 512, memory=0).reason.endswith("fits in 0 MiB")


@pytest.mark.parametrize(("count", "dimension", "memory"), [(-1, 4, None), (4, 0, None), (4, 4, -1)])
def test_choice_refuses_negative_counts_and_memory(count, dimension, memory):
    with pytest.raises(SpecError, match="must be positive"):
        choose_spec(count, dimension, memory=memory)


@given(st.integers(0, 10**9), st.integers(1, 4096), st.integers(0, 10**12))
def test_choice_always_fits_the_memory(count, dimension, memory):
    assert estimate_bytes(choose_spec(count, dimension, memory=memory), count, dimension) <= memory


@pytest.fixture(scope="module")
def rows():
    return clustered_rows(6000, 32)


@pytest.mark.parametrize(
    "spec",
    [
        IndexSpec("hnsw", build_effort=16),
        IndexSpec("hnsw", links=8, build_effort=16),
        IndexSpec("ivf"),
        IndexSpec("ivf", lists=200),
        IndexSpec("ivfpq", code_bits=4),
        IndexSpec("ivfpq", codes=16, code_bits=4),
    ],
    ids=str,
)
def test_estimated_bytes_are_those_of_the_file_within_a_tenth(spec, rows, tmp_path: Path):
    built = spec.create_kind().choose_sizes(*rows.shape).build(rows, np.arange(len(rows)), device="cpu")
    built.save(tmp_path / "index")
    real = (tmp_path / "index").stat().st_size + built.slots.nbytes
    assert estimate_bytes(spec, *rows.shape) == pytest.approx(real, rel=0.1)


def test_exact_needs_no_bytes_on_a_cpu_and_the_rows_on_a_gpu():
    assert estimate_bytes(IndexSpec(), 1000, 512) == 0
    assert estimate_bytes(IndexSpec(), 1000, 512, device="cuda") == pytest.approx(1000 * 512 * 4, rel=0.01)


def test_specs_are_values():
    assert IndexSpec("ivf", lists=3) == replace(IndexSpec("ivf"), lists=3)
