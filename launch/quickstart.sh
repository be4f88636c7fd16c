#!/usr/bin/env bash
# From nothing to a circuit: makes the environment, trains preset "quickstart" on real Python code, finds the circuit of
# one task in it, writes the report and a page that runs the circuit.
#
#     bash launch/quickstart.sh [WORKDIR]        (default: runs/quickstart in the checkout)
#
# As often as one likes: what is finished is kept, what was interrupted goes on from its last checkpoint.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in
-h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
-*) set -- "$1" surplus ;; # it takes no flags; the line below says so
esac
if [ $# -gt 1 ]; then
    echo "quickstart: takes one argument, the workdir, not: $1 ... (for other settings run python -m launch.train --help)" >&2
    exit 2
fi
workdir=${1:-$root/runs/quickstart}
case $workdir in /*) ;; *) workdir=$PWD/$workdir ;; esac
cd "$root"

timings=()
stage() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    "$@"
    timings+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
}

# Larger memory pages make passes over activations cheaper on CPUs. A C library that does not know the setting ignores it.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
python=.venv/bin/python
stage environment bash launch/environment.sh
if [ ! -e "$workdir/manifest.json" ]; then
    scratch=$(mktemp -d)
    stage 'how long it will take' "$python" -m launch.benchmark --parts=quickstart --workdir="$scratch"
    rm -r "$scratch"
fi
stage train "$python" -m launch.train --preset=quickstart --workdir="$workdir"
stage prune "$python" -m launch.prune --workdir="$workdir"
stage report "$python" -m launch.report --workdir="$workdir"
stage page "$python" -m launch.page --workdir="$workdir"

printf '\n== done in %d s\n' "$SECONDS"
printf '%s\n' "${timings[@]}"
printf '\nThe report, to open in a browser: %s\n' "$workdir/report/index.html"
for page in "$workdir"/circuits/*/page.html; do
    printf 'The circuit, running in the browser: %s\n' "$page"
done
