#!/usr/bin/env bash
# Creates or completes the checkout's Python environment; does nothing, quickly, when it is already right.
#
#     bash launch/environment.sh [REQUIREMENTS.txt [FOLDER]]      (default: requirements.txt .venv, both relative to the checkout)
#
# Needs Python 3.11-3.13 with venv; as root on Debian or Ubuntu it installs them when they are missing. PYTHON=... names the one to use.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=${1:-requirements.txt}
folder=${2:-.venv}
cd "$root"

say() { printf 'environment: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# What would put packages elsewhere than into the folder, or bring other ones along. Where pip gets them from stays yours.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIREMENT PIP_NO_DEPS PIP_DRY_RUN PIP_PYTHON PIP_REQUIRE_VIRTUALENV
unset PYTHONPATH PYTHONHOME PYTHONUSERBASE PYTHONSTARTUP PYTHONWARNINGS
export PIP_USER=0 PYTHONNOUSERSITE=1 # these rule over pip.conf, too
[ -d "${TMPDIR:-/}" ] || unset TMPDIR

# --- Which Python -------------------------------------------------------------------------------------------------------

# Prints "3.12" for a Python that runs (a shim on PATH need not) and that we support.
supported_version() {
    "$1" -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) and print("%d.%d" % v[:2])' 2>/dev/null
}

# Debian ships venv and ensurepip apart from Python.
can_make_environments() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

# Sets `python` to the first supported Python; one that can make environments goes before one that cannot.
find_python() {
    local candidate version
    python='' python_without_venv=''
    set -- python3 python3.13 python3.12 python3.11 python
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    for candidate; do
        version=$(supported_version "$candidate") || continue
        [ -n "$version" ] || continue
        if can_make_environments "$candidate"; then
            python=$candidate
            return 0
        fi
        [ -n "$python_without_venv" ] || python_without_venv=$candidate
    done
    return 1
}

# Prints the Debian packages that give what find_python missed.
missing_packages() {
    local version
    if [ -n "$python_without_venv" ]; then
        echo "python$(supported_version "$python_without_venv")-venv"
        return
    fi
    for version in 3.13 3.12 3.11; do
        if apt-cache show "python$version-venv" >/dev/null 2>&1; then
            echo "python$version python$version-venv"
            return
        fi
    done
    return 1
}

# Runs a command as root, without ever asking for a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The way out that needs no root and no package of the system.
uv='without root: uv python install 3.13, then PYTHON="$(uv python find 3.13)" bash launch/environment.sh'

install_python() {
    local packages found output
    found=$(python3 --version 2>/dev/null) || found='no Python'
    case $found in *\ 3.1[4-9]*) found="$found, which JAX as we pin it does not run on" ;; esac
    [ -z "$python_without_venv" ] || found="$python_without_venv without venv"
    if [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13 with venv; name another or unset PYTHON"
    elif ! command -v apt-get >/dev/null; then
        fail "found $found; install Python 3.11, 3.12 or 3.13 with venv, then run this again (or name it: PYTHON=/path/to/python); $uv"
    elif [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
        packages=$(missing_packages) || packages='python3 python3-venv'
        fail "found $found; install what is missing, then run this again: sudo apt-get update && sudo apt-get install $packages; $uv"
    fi
    say "found $found; fetching the list of Debian packages"
    as_root apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
    packages=$(missing_packages) || fail "found $found, and this system's packages hold no Python 3.11, 3.12 or 3.13; $uv"
    say "installing $packages"
    # shellcheck disable=SC2086  # a list of package names, split on purpose
    if ! output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages 2>&1); then
        tail -n 15 <<<"$output" >&2
        fail "could not install $packages; see apt-get's message above"
    fi
    find_python || fail "installed $packages, and still found no Python 3.11, 3.12 or 3.13 with venv on PATH"
}

# --- Is it right already ------------------------------------------------------------------------------------------------

# Prints a requirements file and those it includes.
with_included() {
    local included
    echo "$1"
    sed -n 's/^-r  *//p' "$1" | while read -r included; do with_included "$included"; done
}

# Prints the state that a requirements file stands for: a checksum over it, the files it includes, and the pins.
wanted_state() {
    { with_included "$1" && echo constraints.txt; } | while read -r file; do cat "$file"; done | cksum
}

stamp() { echo "$folder/.installed/${1##*/}"; }

is_ready() {
    [ ! -e "$folder.unfinished" ] && [ -f "$(stamp "$requirements")" ] &&
        [ "$(cat "$(stamp "$requirements")")" = "$(wanted_state "$requirements")" ] &&
        [ -n "$(supported_version "$folder/bin/python")" ]
}

# --- Make it right ------------------------------------------------------------------------------------------------------

# Keeps a long pip run visible: a line for every tenth package.
show_progress() {
    local line found=0
    while read -r line; do
        case $line in
        Collecting*)
            found=$((found + 1))
            [ $((found % 10)) -ne 0 ] || say "  $found packages found"
            ;;
        Installing\ collected*) say "  $found packages found, unpacking them" ;;
        esac
    done
}

install_requirements() {
    local log=$folder/install.log included
    say "installing $requirements into $folder (a minute or two the first time)"
    if ! "$folder/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off \
        --requirement "$requirements" --constraint constraints.txt 2>&1 | tee "$log" | show_progress; then
        tail -n 15 "$log" >&2
        fail "pip could not install $requirements (its whole output: $folder/install.log); run this again to retry"
    fi
    mkdir -p "$folder/.installed"
    with_included "$requirements" | while read -r included; do
        wanted_state "$included" >"$(stamp "$included")"
    done
}

# While FOLDER.unfinished stands, packages may be half-written: a run that finds it starts from an empty environment.
make_ready() {
    if [ -e "$folder.unfinished" ] || [ -z "$(supported_version "$folder/bin/python")" ] ||
        ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
        find_python || install_python
        [ ! -e "$folder" ] || say "$folder is incomplete, broken, or of a Python we do not support; making it anew"
        say "making $folder with $("$python" --version)"
        touch "$folder.unfinished"
        "$python" -m venv --clear "$folder" || fail "$python could not make $folder; see its message above"
    fi
    touch "$folder.unfinished"
    install_requirements
    rm "$folder.unfinished"
    say "ready: $folder ($("$folder/bin/python" --version))"
}

trap 'say "interrupted; run this again to go on"; exit 130' INT TERM
[ -f "$requirements" ] || fail "no such requirements file: $requirements"
is_ready && exit 0
if command -v flock >/dev/null; then
    # Two scripts started at once: the second waits, then finds everything done.
    exec 9>"$folder.lock"
    flock -n 9 || {
        say "waiting for another install into $folder to finish"
        flock 9
    }
fi
is_ready || make_ready
