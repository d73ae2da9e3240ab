#!/usr/bin/env bash
# Installs the lowest versions that pyproject.toml allows, and runs the tests there.
#
#     tools/lowest.sh [FOLDER] [TESTS ...]     FOLDER: where the environment is made; a temporary one, if not given
#
# Only direct dependencies are at their lowest: those of others are what pip would take. uv finds them, since pip cannot.
# It installs this checkout in place, so its C library is compiled anew. Three quarters of an hour on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-$(mktemp -d)}
shift || true
python3.11 -m venv "$folder"
"$folder/bin/pip" install -q uv
"$folder/bin/uv" pip install -q --python "$folder/bin/python" --resolution lowest-direct -e ".[dev]"
"$folder/bin/uv" pip list -q --python "$folder/bin/python" | grep -E "^(torch|numpy|open3d|nerfstudio) "
"$folder/bin/python" -m pytest -p no:cacheprovider "$@"
