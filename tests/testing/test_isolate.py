"""Whatever a kernel does to its process: the verdict is never green, and never wrong about a right kernel."""

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import types

import pytest
import torch

from dinat_ref import na1d
from dinat_ref.testing import Supports, check_kernel, isolate, parametrize_with_checks
from dinat_ref.testing.isolate import Apart, can_be_sent, is_quiet, start_method
from dinat_ref.testing.kernel import Kernel
from dinat_ref.testing.sabotage import CORPUS

ONE = Supports(ndim={1}, dtypes=["float32"])


@pytest.fixture
def no_threads(monkeypatch):
    """As in a process of one thread: pytest-xdist keeps one of its own, which waits for messages and holds no lock."""
    monkeypatch.setattr(isolate, "is_quiet", lambda device="cpu": True)


@pytest.fixture
def only_spawn(monkeypatch):
    """As on Windows and macOS: no process can be split, and there is no server of processes."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])


def exits(query, key, value, kernel_size, **arguments):
    sys.exit(0)


def ends(query, key, value, kernel_size, **arguments):
    os._exit(0)


def aborts(query, key, value, kernel_size, **arguments):
    os.abort()


def interrupts(query, key, value, kernel_size, **arguments):
    raise KeyboardInterrupt


def ends_even(query, key, value, kernel_size, **arguments):
    if kernel_size[0] == 2:
        os._exit(0)
    return na1d(query, key, value, kernel_size, **arguments)


def ends_half(query, key, value, kernel_size, **arguments):
    if query.dtype == torch.float16:
        os._exit(0)
    return na1d(query, key, value, kernel_size, **arguments)


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize(
    ("kernel", "words"),
    [(exits, "exit(0)"), (ends, "status 0"), (aborts, "signal 6"), (interrupts, "KeyboardInterrupt")],
)
def test_a_kernel_that_never_runs_is_one_finding(kernel, words):
    report = check_kernel(kernel, supports=ONE, checks=["D10", "W11", "N01", "E01", "X01"])
    assert not report.passed
    assert words in report.failures[0].message
    assert [result.id for result in report.failures] == ["D10-survives"]
    assert report["N01-float32"].verdict == "follows"


@pytest.mark.parametrize("kernel", [exits, ends, aborts])
def test_called_in_this_process_it_is_stopped_too(kernel):
    def cannot_be_sent(*args, **arguments):
        return kernel(*args, **arguments)

    with threading_alive():
        report = check_kernel(cannot_be_sent, supports=ONE, checks=["W02", "N01", "D10"])
    assert not report.passed
    assert "exit(" in report.failures[0].message
    assert "run in this process" in str(report)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process can be split here")
def test_a_kernel_that_starts_processes_may_end_those(monkeypatch):
    monkeypatch.setattr(isolate, "start_method", lambda load, device="cpu": None)

    def kernel(*tensors, **arguments):
        child = os.fork()
        if child == 0:
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        return na1d(*tensors, **arguments)

    assert check_kernel(kernel, supports=ONE, checks=["D10"]).passed


@pytest.mark.usefixtures("only_spawn")
def test_without_fork_a_fresh_interpreter_is_started_and_started_again():
    supports = Supports(ndim={1}, dtypes=["float32", "float16"])
    report = check_kernel(ends_half, supports=supports, checks=["D10", "W12"])
    assert "run in a fresh interpreter" in str(report)
    assert [result.id for result in report.failures] == ["D10-survives"]
    assert "status 0" in report.failures[0].message
    assert report["W12-even-kernels"].verdict == "passed"


@pytest.mark.usefixtures("no_threads")
def test_the_checks_go_on_after_a_death():
    report = check_kernel(ends_even, supports=ONE, checks=["W11", "W12", "W13", "N01", "E01"])
    assert report["W11-odd-kernels"].verdict == "passed"
    assert report["W12-even-kernels"].verdict == "failed"
    assert report["W13-dilation"].verdict == "follows"
    assert report["E01-kernel-size-zero"].verdict == "passed"
    assert "kernel_size 2" in report["W12-even-kernels"].seen


@parametrize_with_checks(ends, supports=ONE, checks=["D10", "W11", "N01"])
def test_under_pytest_it_is_one_finding_as_well(check):
    if check.check.id == "D10-survives":
        with pytest.raises(AssertionError, match="status 0"):
            check()
    else:
        with pytest.raises(pytest.skip.Exception, match="follows from D10"):
            check()


@pytest.mark.usefixtures("no_threads")
def test_a_kernel_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(isolate, "SECONDS", 1.0)

    def hangs(*tensors, **arguments):
        time.sleep(10)

    report = check_kernel(hangs, supports=ONE, checks=["D10"])
    assert "hung" in report.failures[0].message


class threading_alive:  # noqa: N801 (reads as what it is)
    """A thread that waits, as frameworks have them."""

    def __enter__(self):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.over.wait)
        self.thread.start()

    def __exit__(self, *exception):
        self.over.set()
        self.thread.join()


def test_no_process_with_threads_or_frameworks_is_split(monkeypatch):
    with threading_alive():
        assert not is_quiet()
        assert start_method(functools.partial(Kernel, na1d)) in ("forkserver", "spawn")
        assert start_method(lambda: Kernel(na1d)) is None
    monkeypatch.setitem(sys.modules, "jax", sys)
    assert not is_quiet()


@pytest.mark.usefixtures("no_threads")
def test_a_kernel_that_waits_for_a_lost_thread_is_not_accused_of_hanging(monkeypatch):
    """A pool that was started before the process was split has no threads in the fork."""
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(isolate, "SECONDS", 2.0)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()

        def pooled(*tensors, **arguments):
            return pool.submit(na1d, *tensors, **arguments).result()

        report = check_kernel(pooled, supports=ONE, checks=["D10", "W11"])
    assert report.passed, str(report)


def test_a_module_that_only_this_process_has(monkeypatch):
    """Functions of it can be pickled by name, and nobody else finds the name: as under pytest's importlib mode."""
    module = types.ModuleType("made_here")
    exec("from dinat_ref import na1d\ndef kernel(*a, **k): return na1d(*a, **k)", vars(module))
    monkeypatch.setitem(sys.modules, "made_here", module)
    assert can_be_sent(module.kernel)
    monkeypatch.setattr(isolate, "is_quiet", lambda device="cpu": False)
    report = check_kernel(module.kernel, supports=ONE, checks=["W11"])
    assert report.passed
    assert "run in this process" in str(report)


def test_what_a_fresh_interpreter_can_have():
    assert can_be_sent(na1d)
    assert can_be_sent(CORPUS["all_zeros"].function)
    assert not can_be_sent(lambda: 0)


def test_questions_are_answered_and_errors_come_back():
    with Apart(functools.partial(Kernel, na1d)) as apart:
        assert apart.ask(_sum, 3, 4) == 7
        with pytest.raises(ValueError, match="no"):
            apart.ask(_refuse)
        assert apart.ask(_sum, 1, 1) == 2


def _sum(kernel, place, one, other):
    return one + other


def _refuse(kernel, place):
    raise ValueError("no")


def changes_state(name):
    def kernel(query, key, value, kernel_size, **arguments):
        if name == "prints":
            print("hello from below")
        if name == "writes":
            os.write(1, b"hello from below")
        if name == "default dtype":
            torch.set_default_dtype(torch.float64)
        if name == "random numbers":
            torch.manual_seed(0)
        if name == "threads":
            torch.set_num_threads(torch.get_num_threads() + 1)
        if name == "gradient mode":
            torch.set_grad_enabled(not torch.is_grad_enabled())
        if name == "deterministic mode":
            torch.use_deterministic_algorithms(True)
        return na1d(query, key, value, kernel_size, **arguments)

    return kernel


@pytest.mark.parametrize(
    "name", ["default dtype", "random numbers", "threads", "gradient mode", "deterministic mode", "prints", "writes"]
)
def test_global_state_is_put_back_and_judged(name, capfd):
    before = (torch.get_default_dtype(), torch.initial_seed(), torch.get_num_threads(), torch.is_grad_enabled())
    report = check_kernel(changes_state(name), supports=ONE, checks=["W02", "N01", "D20", "D21"])
    assert [result.id for result in report.failures] == [
        "D21-silent" if name in ("prints", "writes") else "D20-global-state"
    ]
    assert ("hello" if name in ("prints", "writes") else name) in report.failures[0].message
    after = (torch.get_default_dtype(), torch.initial_seed(), torch.get_num_threads(), torch.is_grad_enabled())
    assert before == after
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_change_that_only_later_checks_bring_about_is_judged():
    def kernel(query, key, value, kernel_size, is_causal=False, **arguments):
        if kernel_size[0] == 2:
            torch.manual_seed(0)
        return na1d(query, key, value, kernel_size, is_causal=is_causal, **arguments)

    report = check_kernel(kernel, supports=ONE, checks=["D20", "X04", "X05"])
    assert [result.id for result in report.failures] == ["D20-global-state"]


@pytest.mark.parametrize("apart", [True, False])
def test_ctrl_c_leaves_a_report_of_what_has_run(apart, monkeypatch):
    parent, calls = os.getpid(), []

    def stops(query, key, value, kernel_size, **arguments):
        calls.append(1)
        if len(calls) == 300:
            os.kill(parent, signal.SIGINT)
        return na1d(query, key, value, kernel_size, **arguments)

    monkeypatch.setattr(isolate, "is_quiet", lambda device="cpu": apart)
    report = check_kernel(stops, supports=ONE, checks=["W01", "W17", "N01", "X"])
    assert report.interrupted
    assert not report.passed
    assert report.count("not run") > 0
    assert "interrupted" in str(report)


def test_one_thread_is_used_and_given_back(monkeypatch):
    seen, before = set(), torch.get_num_threads()

    def kernel(query, key, value, kernel_size, **arguments):
        seen.add(torch.get_num_threads())
        return na1d(query, key, value, kernel_size, **arguments)

    monkeypatch.setattr(isolate, "is_quiet", lambda device="cpu": False)
    torch.set_num_threads(2)
    try:
        assert check_kernel(kernel, supports=ONE, checks=["W02"]).passed
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}
