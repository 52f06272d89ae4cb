"""unit_rows makes rows of length 1, and names the vectors that have no direction."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import vectors
from index.errors import IndexingError, VectorError
from index.vectors import check_rows, disable_readahead, unit_rows

NUMBERS = st.floats(-(2.0**60), 2.0**60, width=32).filter(lambda value: value == 0 or abs(value) > 1e-18)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=NUMBERS)


def directions(matrix):
    return matrix[np.any(matrix != 0, axis=1)]


@given(MATRICES.map(directions))
def test_unit_rows_are_float32_of_length_1_in_the_same_direction(matrix):
    rows = unit_rows(matrix)
    assert rows.dtype == np.float32
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-7)
    np.testing.assert_allclose(rows, matrix / lengths, atol=1e-7)


@given(MATRICES.map(directions))
def test_normalising_twice_changes_no_bit(matrix):
    once = unit_rows(matrix)
    np.testing.assert_array_equal(unit_rows(once), once)


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.float16, np.float64])
def test_unit_rows_takes_every_real_dtype(kind):
    np.testing.assert_array_equal(unit_rows(np.array([[3, 4]], kind)), np.array([[0.6, 0.8]], np.float32))


@pytest.mark.parametrize("size", [1e-300, 1e-45, 1e30, 1e300])
def test_lengths_that_overflow_or_underflow_in_float32_are_right(size):
    np.testing.assert_array_equal(unit_rows([[3 * size, 0.0]]), [[1, 0]])
    np.testing.assert_allclose(unit_rows([[size, size]]), [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_length_that_overflows_in_float64_is_right_without_a_warning():
    np.testing.assert_allclose(unit_rows([[1e308] * 4]), [[0.5] * 4])


def test_unit_rows_returns_a_new_array_and_leaves_its_input():
    given_rows = np.array([[1.0, 0.0]], np.float32)
    rows = unit_rows(given_rows)
    rows[0, 0] = 5
    assert given_rows[0, 0] == 1


def test_empty_matrix_gives_no_rows():
    assert unit_rows(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (np.ones(3), r"\(3,\)"),
        (np.ones((2, 2, 2)), r"\(2, 2, 2\)"),
        (np.ones((3, 0)), r"\(3, 0\)"),
        ([], r"\(0,\)"),
        ([[1, 2], [3]], "matrix"),
        ([["a", "b"]], "<U1"),
        ([[1j, 2]], "complex"),
        ([[True, False]], "bool"),
        ([[None, 1]], "object"),
        ([[1, 2], [0, 0]], "Row 1 is all zeros"),
        ([[1, 2], [3, 4], [np.nan, 1]], "Row 2 holds a NaN"),
        ([[1, np.inf]], "Row 0 holds a NaN or an infinity"),
        ([[-np.inf, np.nan]], "Row 0 holds"),
    ],
)
def test_vectors_without_a_direction_are_refused_by_number(wrong, named):
    with pytest.raises(VectorError, match=named):
        unit_rows(wrong)


def test_bad_row_in_a_later_chunk_is_named_by_its_number_in_the_matrix(monkeypatch):
    monkeypatch.setattr(vectors, "CHUNK", 4)
    matrix = np.ones((11, 2))
    matrix[9] = 0
    with pytest.raises(VectorError, match="Row 9 is all zeros"):
        unit_rows(matrix)
    with pytest.raises(VectorError, match="Row 9 has length 0"):
        check_rows((matrix / 2**0.5).astype(np.float32))


def test_other_dimension_is_refused_with_both_numbers():
    with pytest.raises(VectorError, match="dimension 3, and 2 is needed"):
        unit_rows(np.ones((1, 3)), dimension=2)
    with pytest.raises(VectorError, match="dimension 3, and 2 is needed"):
        check_rows(unit_rows(np.ones((1, 3))), dimension=2)


@pytest.mark.parametrize("wrong", [np.ones((1, 2), np.float64), np.ones(2, np.float32), np.ones((2, 0), np.float32)])
def test_rows_that_are_no_float32_matrix_are_refused(wrong):
    with pytest.raises(VectorError, match="unit_rows"):
        check_rows(wrong)


@pytest.mark.parametrize("row", [[np.nan, 0], [2, 0], [0.5, 0.5], [np.inf, 0]])
def test_rows_that_are_not_of_length_1_are_refused(row):
    with pytest.raises(VectorError, match="Row 1 has length"):
        check_rows(np.array([[1, 0], row], np.float32))


def test_vector_errors_are_caught_as_indexing_errors_and_as_value_errors():
    assert issubclass(VectorError, IndexingError)
    assert issubclass(VectorError, ValueError)


def test_memory_map_reads_the_same_without_readahead(tmp_path):
    rows = unit_rows(np.random.default_rng(0).standard_normal((50, 8)))
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r").reshape(-1, 8)
    with disable_readahead(mapped[10:]), disable_readahead(rows):
        np.testing.assert_array_equal(mapped[[3, 40]], rows[[3, 40]])
