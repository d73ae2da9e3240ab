# Sourced by the scripts beside it, in the checkout's root: `python` is what PYTHON names, else that of the checkout's
# .venv, else that of the active environment.
if [ -n "${PYTHON:-}" ]; then
    python=$(realpath -s "$PYTHON") # the scripts change folders
elif [ -x .venv/bin/python ]; then
    python=$PWD/.venv/bin/python
else
    python=$(command -v python || command -v python3)
fi
