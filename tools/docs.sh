#!/usr/bin/env bash
# Builds the documentation, with every warning an error: tools/docs.sh [OUTPUT], build/docs if not given.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/python.sh
output=${1:-build/docs}
"$python" -m sphinx -W --keep-going -n -b html docs "$output"
echo "The documentation: $output/index.html"
