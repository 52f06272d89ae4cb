"""A spec is checked data; the choice says why; the predicted size is the real one within a tenth."""

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
from index.spec import KINDS, IndexSpec, choose_spec, predicted_bytes, spec_for_here
from index.structure import build_structure

EFFORTS = st.floats(0, 1)
MIB = 1 << 20


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kind": "flat"}, "'flat': take one of exact, hnsw, ivf, ivfpq"),
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
def test_impossible_sizes_are_refused_with_their_value(wrong, named):
    with pytest.raises(SpecError, match=named):
        IndexSpec(**wrong)


def test_codes_that_do_not_divide_the_dimension_are_refused():
    with pytest.raises(SpecError, match="7 codes do not divide the dimension 16"):
        IndexSpec("ivfpq", codes=7).sized(1000, 16)


def test_open_sizes_are_chosen_by_count_and_dimension_and_given_ones_are_kept():
    assert IndexSpec("ivf").sized(1_000_000, 512).lists == 4000
    assert IndexSpec("ivf").sized(100, 512).lists == 2
    assert IndexSpec("ivf").sized(0, 512).lists == 1
    assert IndexSpec("ivf", lists=7).sized(1_000_000, 512).lists == 7
    assert IndexSpec("hnsw").sized(1_000_000, 512).lists == 0


@pytest.mark.parametrize(
    ("dimension", "codes"),
    [(512, 64), (384, 96), (768, 96), (256, 64), (640, 64), (896, 56), (32, 8), (4, 1), (3, 3), (509, 509)],
)
def test_codes_divide_the_dimension_and_suit_a_gpu_where_they_can(dimension, codes):
    assert IndexSpec("ivfpq").sized(10_000, dimension).codes == codes


@given(EFFORTS, EFFORTS)
def test_more_effort_never_means_less_work(one, other):
    less, more = sorted([one, other])
    spec = IndexSpec("ivfpq", lists=300, codes=4)
    assert spec.probes(less) <= spec.probes(more)
    assert spec.beam(less, 10) <= spec.beam(more, 10)
    assert spec.depth(less, 10) <= spec.depth(more, 10)


def test_the_ends_and_the_middle_of_the_dial():
    spec = IndexSpec("ivfpq", lists=400, codes=4)
    assert [spec.probes(effort) for effort in (0, 0.5, 1)] == [1, 20, 400]
    assert [spec.beam(effort, 10) for effort in (0, 0.5, 1)] == [16, 256, 4096]
    assert [spec.depth(effort, 10) for effort in (0, 0.5, 1)] == [40, 160, 640]
    assert spec.beam(0, 50) == 50


def test_few_rows_are_searched_exactly_and_many_through_a_graph():
    assert choose_spec(100_000, 512).kind == "exact"
    assert choose_spec(10_000_000, 512).kind == "hnsw"


def test_less_memory_gives_lists_then_codes_then_exact_search_which_needs_none():
    graph = predicted_bytes(IndexSpec("hnsw"), 1_000_000, 512)
    lists = predicted_bytes(IndexSpec("ivf"), 1_000_000, 512)
    codes = predicted_bytes(IndexSpec("ivfpq"), 1_000_000, 512)
    assert graph > lists > codes
    kinds = [choose_spec(1_000_000, 512, memory=memory).kind for memory in (graph, graph - 1, lists - 1, codes - 1, 0)]
    assert kinds == ["hnsw", "ivf", "ivfpq", "exact", "exact"]


def test_a_machine_gives_an_index_half_of_its_memory(monkeypatch):
    monkeypatch.setattr("index.spec.os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 20}.__getitem__)
    assert spec_for_here(1_000_000, 512) == choose_spec(1_000_000, 512, memory=2048 * MIB)
    assert spec_for_here(1_000_000, 512).kind == "ivf"
    assert spec_for_here(100_000_000, 512, device="cuda").kind == "ivf"


def test_a_gpu_holds_no_graph_and_must_hold_the_rows_of_exact_search():
    assert choose_spec(1_000_000, 512, device="cuda").kind == "exact"
    assert choose_spec(1_000_000, 512, memory=1500 * MIB, device="cuda").kind == "ivfpq"
    assert choose_spec(100_000_000, 512, device="cuda").kind == "ivf"
    with pytest.raises(SpecError, match="1 MiB of the GPU"):
        choose_spec(1_000_000, 512, memory=MIB, device="cuda")


def test_the_choice_says_what_and_why_in_words_with_its_numbers():
    assert choose_spec(1000, 64).describe() == "exact: 1,000 rows of 64 are read whole in milliseconds, without error"
    chosen = choose_spec(1_000_000, 512, memory=4096 * MIB).describe()
    assert chosen.startswith("hnsw, 32 links a row: 1,000,000 rows of 512 are too many")
    assert "of 4,096 MiB" in chosen
    assert choose_spec(1_000_000, 512, memory=0).describe().endswith("fits in 0 MiB")


@pytest.mark.parametrize(("count", "dimension", "memory"), [(-1, 4, None), (4, 0, None), (4, 4, -1)])
def test_what_cannot_be_is_refused(count, dimension, memory):
    with pytest.raises(SpecError, match="must be positive"):
        choose_spec(count, dimension, memory=memory)


@given(st.integers(0, 10**9), st.integers(1, 4096), st.integers(0, 10**12))
def test_any_count_and_dimension_gets_a_spec_that_fits_the_memory(count, dimension, memory):
    assert predicted_bytes(choose_spec(count, dimension, memory=memory), count, dimension) <= memory


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
    ids=IndexSpec.describe,
)
def test_predicted_bytes_are_those_of_the_file_within_a_tenth(spec, rows, tmp_path: Path):
    structure = build_structure(rows, np.arange(len(rows)), spec=spec, device="cpu")
    structure.write(tmp_path / "structure")
    real = (tmp_path / "structure").stat().st_size + structure.slots.nbytes
    assert predicted_bytes(spec, *rows.shape) == pytest.approx(real, rel=0.1)


def test_exact_takes_nothing_beside_the_rows_on_a_cpu_and_the_rows_on_a_gpu():
    assert predicted_bytes(IndexSpec(), 1000, 512) == 0
    assert predicted_bytes(IndexSpec(), 1000, 512, device="cuda") == pytest.approx(1000 * 512 * 4, rel=0.01)


def test_specs_are_values():
    assert IndexSpec("ivf", lists=3) == replace(IndexSpec("ivf"), lists=3)
    assert {IndexSpec(kind).kind for kind in KINDS} == {"exact", "hnsw", "ivf", "ivfpq"}
