import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from staf_nerf.plugin.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        tensors = [torch.zeros(2**21) for _ in range(8)]  # 8 MiB each, 2048 pages
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
before = faults()
assert keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_a_step_s_memory_is_there_for_the_next_one():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, result.stdout.split())
    assert after < 1000
    assert after < before / 10
