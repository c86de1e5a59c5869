#!/usr/bin/env bash
# Makes or repairs .venv, so that everything in this checkout runs. Prints nothing if it is ready.
# `make setup` calls it. It may be interrupted at any point and run again.
#
#   PYTHON=python3.12 tools/setup_env.sh     # choose the interpreter (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
python=$venv/bin/python
stamp=$venv/.ready       # written at the very end: what this environment was made from
unmade=$venv/.unmade     # there while `python -m venv` has not finished
requested=${PYTHON:-}
misfit=3                 # exit code of check_env.py: a new environment would not help

die() {
    echo "error: $*" >&2
    exit 2
}

fingerprint() {
    { pwd -P; cat constraints.txt setup.py pyproject.toml \
        cwrgp/install_detectron2.py cwrgp/detectron2_wheel.py \
        tools/check_env.py tools/setup_env.sh; } | sha256sum
}

identity() { # which installation an interpreter belongs to, inside a virtual environment or not
    "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null
}

message=
check() { # torch|ready; 0 or the exit code of check_env.py, and then $message says why
    local code=0
    message=$("$python" tools/check_env.py "$1" 2>&1) || code=$?
    message=$(tail -n 1 <<<"$message")
    return "$code"
}

is_stamped() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]
}

is_requested() {
    [ -z "$requested" ] || [ "$(identity "$requested")" = "$(identity "$python")" ]
}

is_usable() { # an interpreter that runs, recent enough, with a whole pip
    [ ! -e "$unmade" ] && [ -x "$python" ] \
        && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 \
        && { "$python" tools/check_env.py repair || "$python" -m ensurepip >/dev/null 2>&1; } \
        && "$python" -m pip --version >/dev/null 2>&1
}

# Prints the interpreter that new environments are made with.
base_interpreter() {
    local chosen=${requested:-python3} base
    command -v "$chosen" >/dev/null \
        || die "$chosen: no such interpreter; choose one of Python 3.10 or newer with PYTHON=..."
    base=$("$chosen" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))') \
        || die "$chosen does not run; choose an interpreter of Python 3.10 or newer with PYTHON=..."
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || die "$chosen is $("$base" --version 2>&1), but Python 3.10 or newer is needed:" \
            "choose an interpreter with PYTHON=..."
    "$base" -c 'import venv, ensurepip' 2>/dev/null \
        || die "$chosen cannot make virtual environments: install its venv module" \
            "(Debian, Ubuntu: apt install python3-venv) or choose an interpreter with PYTHON=..."
    echo "$base"
}

make_venv() {
    local base
    base=$(base_interpreter)
    if [ -e "$venv" ]; then
        # Out of the way in one step: an interrupted removal must not look like an environment.
        mv "$venv" "$venv.old.$$"
        rm -rf "$venv.old.$$"
    fi
    mkdir "$venv"
    touch "$unmade"
    "$base" -m venv "$venv" || die "$base -m venv failed; it says why above"
    rm "$unmade"
}

install_all() {
    rm -f "$stamp"
    echo "installing into $venv (a first time takes minutes: PyTorch with its libraries is 5 GB)"
    "$python" -m pip install --disable-pip-version-check -e '.[dev]' -c constraints.txt \
        || die "pip failed and says why above; the same command again continues where it stopped"
    check torch || [ "$?" -ne "$misfit" ] || die "$message"
    "$python" tools/install_detectron2.py || exit 2
}

# One set-up at a time: `make demo` and `make test` may be started together.
if command -v flock >/dev/null; then
    exec 9>.venv.lock
    flock -n 9 || { echo "waiting for another set-up of $venv"; flock 9; }
fi
rm -rf "$venv".old.*
[ -z "$requested" ] || base_interpreter >/dev/null  # a wrong choice ends here

if is_stamped && is_requested; then
    check ready && exit 0
    echo "$message"
fi

reason=
if [ ! -e "$venv" ]; then
    reason="making $venv"
elif ! is_usable; then
    reason="$venv is not usable: replacing it"
elif ! is_requested; then
    reason="$venv belongs to another interpreter than $requested: replacing it"
fi
if [ -n "$reason" ]; then
    echo "$reason"
    make_venv
fi
install_all
if ! check ready && [ -z "$reason" ]; then
    echo "$message"
    echo "$venv cannot be repaired: replacing it"
    make_venv
    install_all
fi
check ready || die "$message (to start again from nothing: make clean)"
fingerprint >"$stamp.part"
mv "$stamp.part" "$stamp"
echo "$venv is ready"
