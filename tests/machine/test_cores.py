"""Sharing cores with other programs: what is measured, and that OpenMP's threads are told when others are busy."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from staf_nerf.machine import cores

applies = pytest.mark.skipif(
    cores.waited() is None or cores._gnu_openmp() is None or torch.get_num_threads() < 2,
    reason="one thread, another OpenMP than GNU's, or a system that does not count waiting",
)


def busy() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


@pytest.mark.skipif(cores.waited() is None, reason="this system does not count waiting")
def test_waiting_for_a_core_is_counted():
    before = cores.waited()
    others = [busy() for _ in range(2 * torch.get_num_threads())]
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert cores.waited() - before > 0.1


@applies
def test_threads_wait_briefly_while_others_are_busy_and_only_inside():
    work, more = torch.rand(2**20), torch.rand(300, 300)

    def until(state: bool, seconds: float = 20.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and cores.is_throttled() != state:
            work.mul_(1.0)
            more @ more
        return cores.is_throttled() == state

    others = [busy() for _ in range(torch.get_num_threads())]
    try:
        with cores.shared_cores(), cores.shared_cores():
            assert until(True)
            names = {thread.name for thread in threading.enumerate()}
            assert {"staf-nerf cores", "staf-nerf sleeping team"} <= names
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert not cores.is_throttled()
    assert not any("staf-nerf" in thread.name for thread in threading.enumerate())


def test_results_do_not_depend_on_it(generator, monkeypatch):
    monkeypatch.setattr(cores, "BUSY", -1.0)  # always busy
    monkeypatch.setattr(cores, "INTERVAL", 0.001)
    a, b = (torch.rand(512, 512, generator=generator) for _ in range(2))
    plain = (a @ b).sin().sum(0)
    with cores.shared_cores():
        for _ in range(50):
            assert torch.equal((a @ b).sin().sum(0), plain)


def test_nothing_is_watched_with_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with cores.shared_cores():
            assert cores._watch is None
    finally:
        torch.set_num_threads(threads)
