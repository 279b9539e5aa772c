"""The window of one token: every legal axis of up to 16 tokens against an independent statement of the contract."""

import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from dinat_ref.window import check_axis, check_integer, dilation_group, leader, main, picture, window
from tests.oracle import group_of, legal_axes, nearest_window, stride_group_of

LONGEST = 16
QUERIES = 28_474 + 2_992  # all there are: those that NATTEN takes too, and those with kernel_size 1

Count = Callable[[str, int], None]


def test_every_window_up_to_length_16(count_cases: Count) -> None:
    queries = 0
    for length, *arguments in legal_axes(LONGEST):
        for i in range(length):
            expected = nearest_window(i, length, *arguments)
            assert list(window(i, length, *arguments)) == expected, (i, length, arguments)
            queries += 1
    assert queries == QUERIES
    count_cases("windows", queries)


def test_parts_of_the_definition(count_cases: Count) -> None:
    """The dilation group and the leader, by listing the group and cutting it into stride groups."""
    queries = 0
    for length, _, stride, dilation, is_causal in legal_axes(LONGEST):
        for i in range(length):
            group = group_of(i, length, dilation)
            g, m, n = dilation_group(i, length, dilation)
            assert (g, m, n) == (group[0], group.index(i), len(group))
            sharing = stride_group_of(i, length, stride, dilation)
            expected = sharing[-1] if is_causal else sharing[: stride // 2 + 1][-1]
            assert group[leader(m, n, stride, is_causal)] == expected
            queries += 1
    assert queries == QUERIES
    count_cases("leaders", queries)


@pytest.mark.parametrize(
    ("arguments", "windows"),
    [
        ((5, 3), [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]),
        ((7, 2, 1, 3), [[0, 3], [1, 4], [2, 5], [0, 3], [1, 4], [2, 5], [3, 6]]),
    ],
)
def test_windows_that_the_contract_lists(arguments: tuple[int, ...], windows: list[list[int]]) -> None:
    assert [list(window(i, *arguments)) for i in range(arguments[0])] == windows


def test_even_kernel_that_the_contract_lists() -> None:
    assert [window(i, 8, 4).start for i in range(8)] == [0, 0, 0, 1, 2, 3, 4, 4]


def test_window_is_a_range_of_python_ints() -> None:
    keys = window(np.int64(6), np.int32(7), np.int16(2), np.uint8(1), np.int8(3))  # type: ignore[arg-type]
    assert list(keys) == [3, 6]
    assert all(type(key) is int for key in keys)
    with pytest.raises(ValueError, match=r"150 \* 2 = 300 > 299$"):  # 150 * 2 is 44 in eight bits
        window(0, 299, np.uint8(150), 1, np.uint8(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["i", "length", "kernel_size", "stride", "dilation"])
@pytest.mark.parametrize("value", [True, 2.0, "2", None, np.float64(2), np.bool_(True), [2]])
def test_only_integers(name: str, value: object) -> None:
    arguments: dict[str, object] = {"i": 1, "length": 5, "kernel_size": 2, "stride": 1, "dilation": 1}
    with pytest.raises(TypeError, match=f"{name} must be an integer, got {re.escape(repr(value))}"):
        window(**{**arguments, name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 1, 1.0, None, "yes", np.int8(1), np.array([True])])
def test_only_bools(value: object) -> None:
    with pytest.raises(TypeError, match=f"is_causal must be a bool, got {re.escape(repr(value))}"):
        window(0, 5, 3, is_causal=value)  # type: ignore[arg-type]


def test_a_numpy_bool_is_a_bool() -> None:
    for value in (False, True):
        assert window(3, 7, 3, is_causal=np.bool_(value)) == window(3, 7, 3, is_causal=value)  # type: ignore[arg-type]
        assert check_axis(7, 3, is_causal=np.bool_(value))[-1] is value  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["length", "kernel_size", "stride", "dilation"])
@pytest.mark.parametrize("value", [0, -1, -7])
def test_smallest_values(name: str, value: int) -> None:
    arguments = {"length": 5, "kernel_size": 2, "stride": 1, "dilation": 1, name: value}
    with pytest.raises(ValueError, match=rf"{name} on axis 3 must be at least 1, got {value}$"):
        check_axis(**arguments, axis=3)


def test_every_illegal_axis_is_refused(count_cases: Count) -> None:
    """Up to two tokens beyond every limit: legal by the contract, or a ValueError that says which limit."""
    legal, refused = set(legal_axes(8)), 0
    for length in range(9):
        for kernel_size in range(length + 3):
            for dilation in range(length + 3):
                for stride in range(kernel_size + 3):
                    arguments = (length, kernel_size, stride, dilation, False)
                    if arguments in legal:
                        check_axis(*arguments)
                        continue
                    with pytest.raises(ValueError, match=r"must be at (least 1|most)"):
                        window(0, *arguments)
                    refused += 1
    count_cases("illegal axes", refused)


def test_limits_are_named() -> None:
    with pytest.raises(ValueError, match=r"kernel_size \* dilation on axis 1 must be at most .*: 3 \* 4 = 12 > 11$"):
        check_axis(11, 3, 1, 4, axis=1)
    with pytest.raises(ValueError, match=r"stride on axis 0 must be at most kernel_size, got 4 > 3$"):
        check_axis(11, 3, 4, axis=0)
    for i in (-1, 5):
        with pytest.raises(ValueError, match=rf"i must be in 0 \.\. 4 .*, got {i}$"):
            window(i, 5, 3)


def test_check_integer_returns_a_python_int() -> None:
    assert type(check_integer("stride", np.int64(3))) is int


def test_picture_shows_every_window() -> None:
    """Each row of the picture has a Q at its query and a # at every other key."""
    for length, *arguments in legal_axes(6):
        head, *rows = picture(length, *arguments).splitlines()
        assert head.split(" | ")[1].split() == [str(j) for j in range(length)]
        assert len(rows) == length
        for i, row in enumerate(rows):
            number, cells = row.split(" | ")
            keys = nearest_window(i, length, *arguments)
            expected = ["Q" if j == i else "#" if j in keys else "." for j in range(length)]
            assert (int(number), cells.split()) == (i, expected)


def test_main_prints_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["11", "4", "--stride", "2", "--dilation", "2", "--causal"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == picture(11, 4, 2, 2, True)


def test_main_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["5", "3", "--dilation", "2"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "3 * 2 = 6 > 5" in captured.err


def test_module_runs() -> None:
    command = [sys.executable, "-W", "error", "-m", "dinat_ref.window", "8", "4"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.rstrip("\n") == picture(8, 4)
    assert run.stderr == ""
