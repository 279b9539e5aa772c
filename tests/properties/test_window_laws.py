"""The laws of windows: on every axis of up to 16 tokens, and on long axes that Hypothesis draws.

Each law is a function of one axis that returns how often its condition applied.
"""

from collections.abc import Callable
from functools import cache

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dinat_ref import window
from tests.oracle import Axis, group_of, legal_axes, stride_group_of

LONGEST = 16

Law = Callable[..., int]


@cache
def windows_of(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> list[range]:
    return [window(i, length, kernel_size, stride, dilation, is_causal) for i in range(length)]


def groups_of(length: int, dilation: int) -> list[list[int]]:
    return [group_of(g, length, dilation) for g in range(dilation)]


def number_of_keys(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Exactly k keys; with causality at most k, and min(k, m + 1) where s = 1."""
    windows = windows_of(length, kernel_size, stride, dilation, is_causal)
    for i, keys in enumerate(windows):
        if not is_causal:
            assert len(keys) == kernel_size
        elif stride == 1:
            assert len(keys) == min(kernel_size, i // dilation + 1)
        else:
            assert 1 <= len(keys) <= kernel_size
    return length


def in_bounds(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Every key is a token; with causality none is behind the query."""
    windows = windows_of(length, kernel_size, stride, dilation, is_causal)
    for i, keys in enumerate(windows):
        last = i if is_causal else length - 1
        assert 0 <= keys[0] <= keys[-1] <= last
    return length


def query_in_its_window(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Every query attends itself; with causality it is the last key."""
    for i, keys in enumerate(windows_of(length, kernel_size, stride, dilation, is_causal)):
        assert i in keys
        assert not is_causal or keys[-1] == i
    return length


def contiguous_in_one_group(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """The keys are neighbours in the query's own dilation group, without a gap."""
    for i, keys in enumerate(windows_of(length, kernel_size, stride, dilation, is_causal)):
        group = group_of(i, length, dilation)
        first = group.index(keys[0])
        assert list(keys) == group[first : first + len(keys)]
    return length


def starts_never_decrease(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Inside a dilation group neither the start nor the end of the window moves left."""
    windows, pairs = windows_of(length, kernel_size, stride, dilation, is_causal), 0
    for i in range(dilation, length):
        assert windows[i][0] >= windows[i - dilation][0]
        assert windows[i][-1] >= windows[i - dilation][-1]
        pairs += 1
    return pairs


def every_key_is_attended(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """The union of all windows is the axis."""
    windows = windows_of(length, kernel_size, stride, dilation, is_causal)
    assert {j for keys in windows for j in keys} == set(range(length))
    return 1


def stride_group_shares_its_start(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Queries of a stride group share their window; with causality its start."""
    windows = windows_of(length, kernel_size, stride, dilation, is_causal)
    for i, keys in enumerate(windows):
        first = windows[stride_group_of(i, length, stride, dilation)[0]]
        assert keys[0] == first[0]
        assert is_causal or keys == first
    return length


def nearest_of_the_group(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """s = 1: no token of the group that was left out is nearer than one that was taken; of equals the left is taken."""
    if stride != 1:
        return 0
    for i, keys in enumerate(windows_of(length, kernel_size, stride, dilation, is_causal)):
        seen = [j for j in group_of(i, length, dilation) if not is_causal or j <= i]
        farthest = max((abs(key - i), key > i) for key in keys)
        assert all((abs(j - i), j > i) > farthest for j in seen if j not in keys)
    return length


def even_kernel_leans_left(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Even k, s = 1, window not shifted: k/2 keys before the query, k/2 - 1 after it."""
    if kernel_size % 2 or stride != 1 or is_causal:
        return 0
    applied = 0
    for i, keys in enumerate(windows_of(length, kernel_size, stride, dilation, is_causal)):
        before, after = (i - keys[0]) // dilation, (keys[-1] - i) // dilation
        group = group_of(i, length, dilation)
        if keys[0] > group[0] and keys[-1] < group[-1]:
            assert (before, after) == (kernel_size // 2, kernel_size // 2 - 1)
            applied += 1
    return applied


def dilation_is_plain_on_each_group(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """A dilation group is an axis of its own, without dilation."""
    windows = windows_of(length, kernel_size, stride, dilation, is_causal)
    for group in groups_of(length, dilation):
        plain = windows_of(len(group), kernel_size, stride, 1, is_causal)
        for m, i in enumerate(group):
            assert list(windows[i]) == [group[j] for j in plain[m]]
    return length


def whole_axis_is_full_attention(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """k = L: everybody attends everybody; with causality everybody attends what came before, for any s."""
    if kernel_size != length:
        return 0
    for i, keys in enumerate(windows_of(length, kernel_size, stride, dilation, is_causal)):
        assert list(keys) == list(range(i + 1 if is_causal else length))
    return length


def stride_of_a_kernel_is_blocked(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """s = k and k divides every dilation group: the group is cut into blocks; with causality, up to the query."""
    if stride != kernel_size or any(len(group) % kernel_size for group in groups_of(length, dilation)):
        return 0
    for i, keys in enumerate(windows_of(length, kernel_size, stride, dilation, is_causal)):
        block = stride_group_of(i, length, kernel_size, dilation)
        assert list(keys) == [j for j in block if not is_causal or j <= i]
    return length


def interior_translates(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """A window that touches no end of its group, s steps on in the group: the same window, as many steps on.

    With causality the end that counts is the left one, and the later stride group must be complete.
    """
    windows, applied, step = windows_of(length, kernel_size, stride, dilation, is_causal), 0, stride * dilation
    for i in range(length - step):
        here, there, group = windows[i], windows[i + step], group_of(i, length, dilation)
        complete = len(stride_group_of(i + step, length, stride, dilation)) == stride
        if here[0] > group[0] and (complete if is_causal else there[-1] < group[-1]):
            assert list(there) == [j + step for j in here]
            applied += 1
    return applied


def mirror(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> bool:
    """Whether turning the axis round turns the windows round."""
    windows = windows_of(length, kernel_size, stride, dilation, is_causal)
    return all({length - 1 - j for j in keys} == set(windows[length - 1 - i]) for i, keys in enumerate(windows))


def mirror_symmetry(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Odd k with s = 1; or odd k and odd s, where s divides the length of every dilation group."""
    whole = all(len(group) % stride == 0 for group in groups_of(length, dilation))
    if is_causal or kernel_size % 2 == 0 or stride % 2 == 0 or not whole:
        return 0
    assert mirror(length, kernel_size, stride, dilation, is_causal)
    return 1


def causal_prefix(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> int:
    """Appending tokens does not change the windows of complete stride groups."""
    if not is_causal:
        return 0
    windows, applied = windows_of(length, kernel_size, stride, dilation, is_causal), 0
    for longer in range(length + 1, length + 4):
        for i, keys in enumerate(windows):
            if len(stride_group_of(i, length, stride, dilation)) == stride:
                assert window(i, longer, kernel_size, stride, dilation, is_causal) == keys
                applied += 1
    return applied


LAWS: list[Law] = [
    number_of_keys,
    in_bounds,
    query_in_its_window,
    contiguous_in_one_group,
    starts_never_decrease,
    every_key_is_attended,
    stride_group_shares_its_start,
    nearest_of_the_group,
    even_kernel_leans_left,
    dilation_is_plain_on_each_group,
    whole_axis_is_full_attention,
    stride_of_a_kernel_is_blocked,
    interior_translates,
    mirror_symmetry,
    causal_prefix,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_on_every_short_axis(law: Law, count_cases: Callable[[str, int], None]) -> None:
    applied = sum(law(*axis) for axis in legal_axes(LONGEST))
    assert applied > 100, "the condition of this law hardly ever holds"
    count_cases("cases of window laws", applied)


@st.composite
def long_axes(draw: st.DrawFn) -> Axis:
    """An axis of up to some hundred tokens; the sizes that make laws apply are drawn on purpose."""
    kernel_size = draw(st.integers(1, 40))
    dilation = draw(st.integers(1, 12))
    reach = kernel_size * dilation
    length = reach + draw(st.sampled_from([0, 1, dilation - 1, reach, 2 * reach]) | st.integers(0, 100))
    stride = draw(st.sampled_from([1, kernel_size]) | st.integers(1, kernel_size))
    return length, kernel_size, stride, dilation, draw(st.booleans())


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@given(axis=long_axes())
def test_law_on_long_axes(law: Law, axis: Axis) -> None:
    law(*axis)
    windows_of.cache_clear()


@pytest.mark.parametrize(
    ("axis", "condition"),
    [
        ((5, 2, 1, 1, False), "odd kernel_size"),
        ((8, 3, 2, 1, False), "odd stride"),
        ((7, 3, 3, 1, False), "stride divides the length"),
        ((12, 3, 3, 3, False), "stride divides the length of every dilation group, not only of the axis"),
    ],
)
def test_mirror_symmetry_needs_each_of_its_conditions(axis: Axis, condition: str) -> None:
    assert axis in set(legal_axes(LONGEST))
    assert not mirror(*axis), condition


def test_appending_may_change_an_incomplete_stride_group() -> None:
    """The condition of the causal prefix law is needed: the leader of a cut group is its last query."""
    assert window(2, 3, 2, 2, is_causal=True) == range(1, 3)
    assert window(2, 4, 2, 2, is_causal=True) == range(2, 3)
