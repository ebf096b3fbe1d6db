# Sourced by ops/run and ops/test: sets $python to a Python 3.11+ that can make virtual environments.
# PYTHON names one explicitly; then no other is tried.

python_fits() {
    # A pyenv shim exists for versions that are not selected, so a name on the path proves nothing: run it.
    "$1" -c 'import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

python=
if [ -n "${PYTHON:-}" ]; then
    if python_fits "$PYTHON"; then
        python=$PYTHON
    else
        echo "cuebook: PYTHON=$PYTHON does not start, is older than 3.11, or lacks venv or ssl" >&2
        exit 2
    fi
else
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if python_fits "$candidate"; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "cuebook: no Python 3.11 or newer with venv on the path" >&2
    echo "why: tried python3, python3.13, python3.12, python3.11" >&2
    echo "next: install one (on Debian: python3 and python3-venv), or name it: PYTHON=/path/to/python3 $0" >&2
    exit 2
fi
