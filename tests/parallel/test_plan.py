"""The plan of a split axis, against brute force: every window by the oracle, united with sets."""

import io
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from dinat_ref.parallel import plan as plan_module
from dinat_ref.parallel.picture import is_coloured, picture, rank_table, size_table
from dinat_ref.parallel.plan import Plan, bands, even_split, main, received_bytes
from tests.oracle import Axis, legal_axes, nearest_window

LONGEST = 12
LONGEST_SPLIT = 8  # up to which every split into up to 4 shards is tried on every axis

Count = Callable[[str, int], None]


@cache
def oracle_windows(axis: Axis) -> list[set[int]]:
    return [set(nearest_window(i, *axis)) for i in range(axis[0])]


def union(axis: Axis, queries: range) -> set[int]:
    return set().union(*(oracle_windows(axis)[i] for i in queries))


def splits(length: int, ranks: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut an axis, empty shards included."""
    for cuts in itertools.combinations_with_replacement(range(length + 1), ranks - 1):
        yield tuple(stop - start for start, stop in itertools.pairwise((0, *cuts, length)))


def tokens(ranges: list[range]) -> list[int]:
    return [token for keys in ranges for token in keys]


def check_plan(plan: Plan, axis: Axis) -> None:
    """Exactly the union of the windows, each key once, from its owner; both ends of a message agree."""
    ranks = range(len(plan.sizes))
    received = [plan.receives(rank) for rank in ranks]
    for rank in ranks:
        own = set(plan.shards[rank])
        travels = [token for ranges in received[rank].values() for token in tokens(ranges)]
        assert len(travels) == len(set(travels)) == plan.halo(rank)
        assert set(travels) == union(axis, plan.shards[rank]) - own
        for source, ranges in received[rank].items():
            assert source != rank
            assert set(tokens(ranges)) <= set(plan.shards[source])
            assert all(keys.step == axis[3] for keys in ranges)
            assert len({keys[0] % axis[3] for keys in ranges}) == len(ranges), "one range a dilation group"
        assert plan.sources(rank) == {source: len(tokens(ranges)) for source, ranges in received[rank].items()}
        assert plan.sends(rank) == {target: received[target][rank] for target in ranks if rank in received[target]}
        reached = own | set(travels)
        stretch = max(reached) + 1 - min(reached) if reached else 0
        assert plan.spare(rank) == stretch - len(reached)


def test_every_shard_of_every_axis_up_to_length_12(count_cases: Count) -> None:
    """A rank's keys depend on its own shard alone: all shards there are stand for all splits there are."""
    shards = 0
    for axis in legal_axes(LONGEST):
        length = axis[0]
        for start, stop in itertools.combinations_with_replacement(range(length + 1), 2):
            needs = bands(range(start, stop), *axis)
            keys = [token for band in needs for token in tokens(band.within(range(length)))]
            expected = union(axis, range(start, stop))
            assert len(keys) == len(expected), (axis, start, stop)
            assert set(keys) == expected, (axis, start, stop)
            for token in range(length + 1):  # any owner's part is a difference of two of these
                assert sum(band.before(token) for band in needs) == sum(key < token for key in keys)
            assert len(needs) <= 4
            shards += 1
    count_cases("shards", shards)


def test_every_split_into_up_to_4_shards(count_cases: Count) -> None:
    """Whole plans: every axis up to 8 and every split; up to 12 every split of an axis in its turn."""
    plans = 0
    for number, axis in enumerate(legal_axes(LONGEST)):
        every = (sizes for ranks in (1, 2, 3, 4) for sizes in splits(axis[0], ranks))
        if axis[0] > LONGEST_SPLIT:
            every = itertools.islice(every, number % 61, None, 61)  # a prime: no split is left out by all axes
        for sizes in every:
            check_plan(Plan(sizes, *axis[1:]), axis)
            plans += 1
    count_cases("plans", plans)


def test_every_split_of_12_tokens_is_met() -> None:
    """The turns above leave out no split."""
    every = [sizes for ranks in (1, 2, 3, 4) for sizes in splits(LONGEST, ranks)]
    turns = {number % 61 for number, axis in enumerate(legal_axes(LONGEST)) if axis[0] == LONGEST}
    assert turns == set(range(61))
    assert len(every) == len(set(every)) == 1 + 13 + 91 + 455


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, Axis]:
    kernel_size, dilation = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    length = kernel_size * dilation + draw(st.integers(0, 40))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    sizes = tuple(stop - start for start, stop in itertools.pairwise((0, *cuts, length)))
    plan = Plan(sizes, kernel_size, draw(st.integers(1, kernel_size)), dilation, draw(st.booleans()))
    return plan, (length, plan.kernel_size, plan.stride, plan.dilation, plan.is_causal)


@given(plans())
def test_longer_axes_and_more_ranks(drawn: tuple[Plan, Axis]) -> None:
    check_plan(*drawn)


def test_inside_a_group_windows_never_turn_back_and_leave_no_gap(count_cases: Count) -> None:
    """Why the first and the last query of a group are enough."""
    pairs = 0
    for axis in legal_axes(LONGEST):
        windows, dilation = oracle_windows(axis), axis[3]
        for i in range(axis[0] - dilation):
            here, after = windows[i], windows[i + dilation]
            assert min(here) <= min(after) <= max(here) + dilation
            assert max(here) <= max(after)
            pairs += 1
    count_cases("neighbouring windows", pairs)


def padded(i: int, length: int, kernel_size: int, *_: object) -> range:
    return range(max(i - kernel_size // 2, 0), min(i + (kernel_size + 1) // 2, length))


def leaning_right(i: int, length: int, kernel_size: int, *_: object) -> range:
    start = min(max(i - (kernel_size - 1) // 2, 0), length - kernel_size)
    return range(start, start + kernel_size)


@pytest.mark.parametrize("wrong_window", [padded, leaning_right])
def test_a_wrong_window_is_noticed(monkeypatch: pytest.MonkeyPatch, wrong_window: Callable[..., range]) -> None:
    """The check above rejects the plans of other windows."""
    check_plan(Plan((2, 3, 3), kernel_size=4), (8, 4, 1, 1, False))
    monkeypatch.setattr(plan_module, "window", wrong_window)
    with pytest.raises(AssertionError):
        check_plan(Plan((2, 3, 3), kernel_size=4), (8, 4, 1, 1, False))


def test_a_halo_reaches_over_several_ranks() -> None:
    assert Plan((1,) * 7, kernel_size=5).receives(3) == {r: [range(r, r + 1)] for r in (1, 2, 4, 5)}


def test_at_an_edge_the_halo_follows_the_shift() -> None:
    """The last query attends the last five tokens, four of them before it."""
    assert Plan((8, 1), kernel_size=5).receives(1) == {0: [range(4, 8)]}


def test_at_the_largest_dilation_every_group_is_its_window() -> None:
    plan = Plan((6, 6), kernel_size=2, dilation=6)
    assert plan.receives(0) == {1: [range(6 + g, 7 + g, 6) for g in range(6)]}
    assert [plan.halo(rank) for rank in (0, 1)] == [6, 6]


def test_even_split_is_that_of_pytorch() -> None:
    for length, ranks in itertools.product(range(1, 13), range(1, 9)):
        chunks = [len(chunk) for chunk in torch.arange(length).chunk(ranks)]
        assert even_split(length, ranks) == (*chunks, *[0] * (ranks - len(chunks)))


def test_bytes_are_the_numbers_counted_one_by_one() -> None:
    """Each number of each tensor: who owns it by tokens, who needs it."""
    heads, head_dim, element_size, axis = 6, 5, 2, (11, 3, 1, 2, False)
    for sizes in splits(11, 3):
        plan = Plan(sizes, *axis[1:])
        head_owner = [rank for rank, count in enumerate(even_split(heads, 3)) for _ in range(count)]
        token_owner = [rank for rank, size in enumerate(sizes) for _ in range(size)]
        counts = {"halo": [0] * 3, "all-gather": [0] * 3, "heads": [0] * 3}
        for rank, token, head in itertools.product(range(3), range(11), range(heads)):
            foreign = token_owner[token] != rank
            counts["halo"][rank] += 2 * (foreign and token in union(axis, plan.shards[rank]))
            counts["all-gather"][rank] += 2 * foreign
            counts["heads"][rank] += 3 * (foreign and head_owner[head] == rank)
            counts["heads"][rank] += (not foreign) and head_owner[head] != rank
        expected = {way: max(numbers) * head_dim * element_size for way, numbers in counts.items()}
        assert received_bytes(plan, heads, head_dim, element_size) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((3, -1, 4), 2), ValueError, r"sizes\[1\] must be at least 0, got -1"),
        (((3, 2.0), 2), TypeError, r"sizes\[1\] must be an integer"),
        (((), 1), ValueError, "length must be at least 1, got 0"),
        (((2, 2), 3, 1, 2), ValueError, r"3 \* 2 = 6 > 4"),
    ],
)
def test_illegal_plans_are_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Plan(*arguments)


def test_the_plan_needs_no_torch() -> None:
    code = "import sys, dinat_ref.parallel.plan, dinat_ref.parallel.picture; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_picture_shows_every_token(count_cases: Count) -> None:
    drawn = 0
    for axis in legal_axes(5):
        for sizes in splits(axis[0], 3):
            plan = Plan(sizes, *axis[1:])
            _, *rows = picture(plan).splitlines()
            owner = "".join("ABC"[rank] * size for rank, size in enumerate(sizes))
            for rank, row in enumerate(rows):
                needed = union(axis, plan.shards[rank])
                marks = ["/" if token in needed else " " for token in range(axis[0])]
                cells = [
                    2 * letter if token in plan.shards[rank] else "/" + letter if mark == "/" else " ."
                    for token, (mark, letter) in enumerate(zip(marks, owner, strict=True))
                ]
                assert row == f"{rank:>4}  {''.join(cells)}"
                drawn += 1
    count_cases("rows of pictures", drawn)


def test_colours_stand_for_the_letters() -> None:
    plan = Plan((4, 1, 0, 3), kernel_size=3)
    letters = {"33": "A", "208": "B", "34": "C", "199": "D"}
    coloured = re.sub(r"\033\[48;5;(\d+)m  \033\[0m", lambda cell: 2 * letters[cell[1]], picture(plan, coloured=True))
    coloured = re.sub(r"\033\[38;5;(\d+)m//\033\[0m", lambda cell: "/" + letters[cell[1]], coloured)
    assert coloured == picture(plan)


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert is_coloured(terminal)
    assert not is_coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_coloured(terminal)


def test_a_long_axis_is_drawn_in_few_lines_and_columns() -> None:
    plan = Plan(even_split(10**9, 4096), kernel_size=9, dilation=10**8)
    for text in (picture(plan), rank_table(plan)):
        assert len(text.splitlines()) <= 18
        assert max(map(len, text.splitlines())) <= 120


def test_the_table_counts_every_power_of_two_and_the_plan() -> None:
    rows = size_table(Plan((5, 4000, 995), kernel_size=7), 8, 32, 4).splitlines()[1:]
    assert rows[-1] == "* the plan above"
    assert [row[:8].strip() for row in rows[:-1]] == [str(1), "2", "3 *", *(str(2**power) for power in range(2, 13))]
    assert all(row.endswith(" -") == (int(row[:8].strip(" *")) > 8) for row in rows[:-1])


def test_module_runs() -> None:
    command = [sys.executable, "-W", "error", "-m", "dinat_ref.parallel.plan", "24", "5", "--dilation", "2", "--causal"]
    run = subprocess.run([*command, "--split", "9,0,15"], capture_output=True, text=True, check=True)
    plan = Plan((9, 0, 15), kernel_size=5, dilation=2, is_causal=True)
    assert run.stdout.rstrip("\n") == "\n\n".join([picture(plan), rank_table(plan), size_table(plan, 8, 32, 4)])
    assert run.stderr == ""


def test_help_has_examples_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    examples = re.findall(r"^  python -m dinat_ref\.parallel\.plan ([\w ,-]+?)  ", capsys.readouterr().out, re.M)
    assert len(examples) == 4
    assert [main(example.split()) for example in examples] == [0] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("5 3 --dilation 2", "3 * 2 = 6 > 5"),
        ("5 3 --stride 4", "stride must be at most kernel_size, got 4 > 3"),
        ("five 3", "argument LENGTH: invalid int value: 'five'"),
        ("5", "the following arguments are required: KERNEL"),
        ("5 3 --ranks 0", "--ranks must be at least 1, got 0"),
        ("5 3 --ranks 4097", "there may be at most 4,096 ranks, got 4,097"),
        ("5 3 --split 2,2", "--split must be 5 tokens in all (LENGTH), none negative, got 2,2"),
        ("5 3 --split 7,-2", "--split must be 5 tokens in all (LENGTH), none negative, got 7,-2"),
        ("5 3 --split 2;3", "--split must be numbers of tokens such as 9,0,3,12, got '2;3'"),
        ("5 3 --split 5 --ranks 2", "argument --ranks: not allowed with argument --split"),
        ("5 3 --heads 0", "--heads must be at least 1, got 0"),
        ("5 3 --head-dim -1", "--head-dim must be at least 1, got -1"),
        ("5 3 --bytes 0", "--bytes must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("python -m dinat_ref.parallel.plan: error: ")
    assert captured.err.endswith(f"{message}\n")
    assert captured.err.count("\n") == 1
