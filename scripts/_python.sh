# Sourced by the launchers: sets PYTHON to an interpreter that is new enough, or says what to install.
# The environment itself is made by _environment.py, which that interpreter runs.

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 </dev/null
}

if [ -n "${PYTHON:-}" ]; then
    if ! new_enough "$PYTHON"; then
        echo "error: PYTHON=$PYTHON is not a working Python 3.11 or newer" >&2
        echo "hint: unset PYTHON, or set it to one that is" >&2
        exit 2
    fi
else
    for PYTHON in python3 python3.15 python3.14 python3.13 python3.12 python3.11 none; do
        if new_enough "$PYTHON"; then break; fi
    done
    if [ "$PYTHON" = none ]; then
        echo "error: no Python 3.11 or newer on PATH (python3: $(python3 --version 2>/dev/null || echo none))" >&2
        echo "hint: on Debian 12 or newer: apt-get install python3 python3-venv; or set PYTHON=/path/to/python3.x" >&2
        exit 2
    fi
fi
