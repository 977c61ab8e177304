"""Arrow through its buffers: the same values as Arrow's own conversions give, slices and nulls included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from workloads.formats import arrow

NUMBER_TYPES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64()),
]
CELLS = [3, None, 5, 0, None, None, 7, 1, 2, 9, None, 11, 4]


def typed(type_: Any) -> Any:
    return pa.array(
        [cell if cell is None else np.float16(cell) for cell in CELLS] if type_ == pa.float16() else CELLS, type_
    )


@pytest.mark.parametrize("type_", NUMBER_TYPES, ids=str)
@pytest.mark.parametrize(("start", "length"), [(0, 13), (1, 12), (3, 6), (8, 5), (9, 3), (4, 2), (13, 0)])
def test_numbers_of_every_width_are_read_from_any_slice(type_: Any, start: int, length: int) -> None:
    part, expected = typed(type_).slice(start, length), CELLS[start : start + length]
    assert arrow.valid(part).tolist() == [cell is not None for cell in expected]
    assert arrow.integers(part).tolist() == [-1 if cell is None else cell for cell in expected]
    np.testing.assert_array_equal(arrow.floats(part), [np.nan if cell is None else cell for cell in expected])


def test_nothing_under_a_null_is_read() -> None:
    values, bitmap = np.array([1.0, np.nan, 3.0]), np.packbits([1, 0, 1], bitorder="little")
    column = pa.Array.from_buffers(pa.float64(), 3, [pa.py_buffer(bitmap), pa.py_buffer(values)])
    assert arrow.integers(column).tolist() == [1, -1, 3]


def test_unsigned_numbers_too_large_for_an_integer_become_negative() -> None:
    assert (arrow.integers(pa.array([2**63, 2**64 - 1], pa.uint64())) < 0).all()


def test_texts_are_given_with_each_entrys_place() -> None:
    column = pa.array(["b", None, "a", "b", "é"]).dictionary_encode().slice(1)
    known, places = arrow.texts(column)
    assert [known[place] if place >= 0 else None for place in places] == [None, "a", "b", "é"]


@pytest.mark.parametrize("values", [pa.array(["1"]), pa.array([True]), pa.nulls(2), pa.array([[1]])], ids=str)
def test_what_is_no_number_is_refused(values: Any) -> None:
    assert not arrow.is_number(values.type)
    with pytest.raises(TypeError, match="allowed: integers, floats"):
        arrow.integers(values)


@pytest.mark.parametrize(
    ("type_", "is_text"),
    [
        (pa.string(), True),
        (pa.large_string(), True),
        (pa.dictionary(pa.int8(), pa.string()), True),
        (pa.list_(pa.string()), False),
        (pa.binary(), False),
        (pa.int32(), False),
    ],
    ids=str,
)
def test_texts_are_told_by_their_type(type_: Any, is_text: bool) -> None:
    assert arrow.is_text(type_) == is_text


def test_a_column_survives_the_way_there_and_back() -> None:
    column = np.array([4, 1, 8, 2], np.int32)[::2]
    assert arrow.integers(arrow.to_arrow(column, pa.int32())).tolist() == [4, 8]
