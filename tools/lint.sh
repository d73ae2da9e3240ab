#!/usr/bin/env bash
# Lint, format and types; it changes nothing. `ruff check --fix .` and `ruff format .` mend what can be mended.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/python.sh
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pyright --pythonpath "$python"
