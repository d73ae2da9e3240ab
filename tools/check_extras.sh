#!/usr/bin/env bash
# Installs the core, then one extra after the other, in an environment that holds nothing else, and uses each.
#
#     tools/check_extras.sh [FOLDER]      FOLDER: where the environment is made; a temporary one, if not given
#
# The extras are nested (signals < export, signals < mesh), so one environment that grows tries each alone; onnx is taken
# out again before the next one. The extra `nerf`, with all others, is what README's first command installs.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
folder=${1:-$(mktemp -d)}
python3 -m venv "$folder/venv"
python=$folder/venv/bin/python

# Not in the checkout: Python would import that instead of what is installed.
use() { (cd "$folder" && "$python" "$checkout/tools/check_extra.py" "$1"); }

"$python" -m pip install -q "torch>=2.9" "numpy>=1.26"
start=$(date +%s.%N)
"$python" -m pip install -q .
"$python" - "$start" <<'EOP'
import sys, time
print(f"pip install . took {time.time() - float(sys.argv[1]):.1f} s, with its C library compiled", flush=True)
EOP
use core
"$python" -m pip install -q ".[signals]"
use signals
"$python" -m pip install -q ".[export]"
use export
"$python" -m pip uninstall -q -y onnx protobuf
"$python" -m pip install -q ".[mesh]"
use mesh
