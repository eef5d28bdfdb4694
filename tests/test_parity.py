"""The recorder of parity figures lets nothing pass that is not shown equal."""

import numpy as np
import parity
import pytest


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(parity, "rows", {})


def test_the_error_is_relative_to_the_largest_expected_number():
    assert parity.check("a", "b", np.float32([2.0, -4.5]), np.float32([2.0, -4.0]), 0.2) == 0.125


def test_a_row_is_the_largest_error_of_its_name_and_rows_are_sorted():
    for error in (0.01, 0.03, 0.02):
        parity.check("z", "there", [1 + error], [1.0], 0.1)
    parity.check("a", "there", [1.0], [1.0], 1e-5)
    assert parity.lines()[2:] == ["| a | there | 0.0e+00 | 1e-05 |", "| z | there | 3.0e-02 | 1e-01 |"]


@pytest.mark.parametrize("found", [[1.2, 0.0], [np.nan, 0.0], [1.0]])
def test_what_is_over_the_bound_or_no_number_or_of_another_shape_fails(found):
    with pytest.raises(AssertionError):
        parity.check("a", "b", found, [1.0, 0.0], 0.1)


def test_a_row_has_one_bound():
    parity.check("a", "b", [1.0], [1.0], 1e-5)
    with pytest.raises(AssertionError, match="one bound"):
        parity.check("a", "b", [1.0], [1.0], 1e-4)
