"""The window without edges against the law that it must obey, on every small axis."""

from dinat_ref import Neighborhood, window
from dinat_ref.analysis.edge_shift import edge_shift, unshifted_window


def test_every_axis_up_to_twelve() -> None:
    for length in range(1, 13):
        for kernel_size in range(1, length + 1):
            for dilation in range(1, length // kernel_size + 1):
                for stride in range(1, kernel_size + 1):
                    for i in range(length):
                        wanted = unshifted_window(i, length, kernel_size, stride, dilation)
                        actual = window(i, length, kernel_size, stride, dilation)
                        assert len(wanted) == kernel_size
                        assert wanted.step == actual.step == dilation
                        assert (wanted.start - actual.start) % dilation == 0
                        inside = wanted[0] >= 0 and wanted[-1] < length
                        assert inside or wanted != actual
                        if inside and stride == 1:
                            assert wanted == actual
                        if stride == 1:  # centred, even kernels lean left
                            assert wanted[0] == i - kernel_size // 2 * dilation


def test_causal_windows_are_shortened_not_shifted() -> None:
    for i in range(9):
        wanted = unshifted_window(i, 9, 4, is_causal=True)
        assert [key for key in wanted if key >= 0] == list(window(i, 9, 4, is_causal=True))


def test_shift_of_corners() -> None:
    neighborhood = Neighborhood((20, 30), kernel_size=(5, 3), dilation=(2, 4))
    assert edge_shift(neighborhood, (0, 29)) == (4, -4)
    assert edge_shift(neighborhood, (10, 15)) == (0, 0)
