import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from staf_nerf.machine.memory import keep_freed_memory, return_freed_memory

class Statistics(ctypes.Structure):  # glibc's struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Statistics
libc.malloc.restype = ctypes.c_void_p

def size():
    found = libc.mallinfo2()
    return found.arena + found.hblkhd >> 20

def given_back():
    blocks = [ctypes.c_void_p(libc.malloc(16 << 20)) for _ in range(8)]  # 16 MiB each
    before = size()
    for block in blocks:
        libc.free(block)
    return before - size()

before = given_back()
assert keep_freed_memory()
given_back()
kept = given_back()
held = size()
assert return_freed_memory()
print(before, kept, held - size(), given_back())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_a_step_s_memory_is_there_for_the_next_one():
    if tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33):
        pytest.skip("this glibc does not count its heap in 64 bits")
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    # MiB that went back to the system: when blocks were freed, when they are kept, when they no longer are, and after.
    before, kept, returned, after = map(int, result.stdout.split())
    assert min(before, returned, after) >= 100
    assert kept == 0
