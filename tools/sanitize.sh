#!/usr/bin/env bash
# Runs the kernels' tests against a build of the C library with AddressSanitizer and UndefinedBehaviorSanitizer. The
# build and a copy of the package lie in a temporary folder: the checkout's own library stays as it is. Needs gcc
# (CC names another one) and an environment with the package's dependencies and pytest. Any report is a failure.
#
#     tools/sanitize.sh                                  all of it, two to three minutes on 2 cores
#     tools/sanitize.sh tests/test_rays.py -k weights    arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/python.sh
compiler=${CC:-gcc}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r pyproject.toml setup.py method_configs staf_nerf tests "$work"
rm -f "$work"/staf_nerf/kernels/_native.*
cd "$work"

# The sources and flags of setup.py, with less optimisation: compilers take the last of two that contradict. Products
# and sums must still be rounded together, which gcc does with -fexpensive-optimizations. It unrolls no loop then, and would
# warn of each that is to be unrolled (-w).
read -r -a sources < <("$python" -c "import setup; print(*setup.SOURCES)")
read -r -a flags < <("$python" -c "import setup; print(*setup.FLAGS)")
flags+=(-w -O1 -fexpensive-optimizations -g -fPIC -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all)
objects=() running=()
for source in "${sources[@]}"; do
    "$compiler" "${flags[@]}" -c "$source" -o "$source.o" &
    objects+=("$source.o") running+=($!)
done
for one in "${running[@]}"; do wait "$one"; done
"$compiler" -shared "${flags[@]}" "${objects[@]}" -o staf_nerf/kernels/_native.abi3.so -lm

# Python was built without the sanitizers: their library has to be loaded first, and C++'s before an exception is thrown.
preload=""
for library in libasan.so libstdc++.so.6; do
    preload="$preload $("$compiler" -print-file-name="$library")"
done
# torch is full of allocations that are never freed.
export ASAN_OPTIONS="detect_leaks=0:log_path=$work/report"
export UBSAN_OPTIONS="print_stacktrace=1:log_path=$work/report"

if [ $# -eq 0 ]; then
    # Left out: what asks torch's compiler, or torch's own checks of operators, and calls no other C code than the rest;
    # the test of what happens without the library; and tests of memory and stacks, which sanitizers enlarge.
    set -- tests/test_kernels.py tests/test_interpolation_table.py tests/test_rays.py tests/test_encodings.py \
        -k "not compiled and not torch_s_rules and not without_the_library and not little_memory and not small_stacks"
fi
status=0
LD_PRELOAD=$preload "$python" - "$@" <<'EOF' || status=$?
import os
import sys

sys.path.insert(0, os.getcwd())  # before an installed copy of the package

import pytest

from staf_nerf.kernels import library

assert library.library() is not None, "the library with sanitizers could not be loaded"
assert library.library()._name.startswith(os.getcwd()), library.library()._name
sys.exit(pytest.main(["-q", "--disable-warnings", "-p", "no:cacheprovider", *sys.argv[1:]]))
EOF

for report in "$work"/report.*; do
    [ -e "$report" ] || continue
    cat "$report"
    status=1
done
exit "$status"
