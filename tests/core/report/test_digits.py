import math

from hypothesis import given
from hypothesis import strategies as st

from genaug.report.digits import SAME, told, told_row

NUMBERS = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.floats(2.1399, 2.1401)), max_size=6)


def test_three_digits_where_they_do():
    assert told([10.123, 9.6, None, 5.9564]) == ["10.1", "9.6", None, "5.96"]
    assert told([2.14, 2.1400000000000001, 2.14]) == ["2.14"] * 3


def test_more_where_they_do_not():
    assert told([2.1402, 2.1404, 7.0]) == ["2.1402", "2.1404", "7"]
    assert told([None, None]) == [None, None]


@given(NUMBERS)
def test_different_ones_never_look_the_same(numbers):
    texts = told(numbers)
    for a, x in zip(numbers, texts, strict=True):
        assert (a is None) == (x is None)
        for b, y in zip(numbers, texts, strict=True):
            if a is not None and b is not None and x == y:
                assert math.isclose(a, b, rel_tol=20 * SAME, abs_tol=1e-300)


def test_both_sides_of_a_row():
    row = {"synthetic": {"value": 2.1402, "interval": (2.1401, 2.1403)}, "real": {"value": 2.1399, "interval": None}}
    assert told_row(row) == {"synthetic": ("2.1402", "2.1401 to 2.1403"), "real": ("2.1399", None)}
    assert told_row({**row, "real": {"value": None, "interval": None}})["real"] == ("none", None)
