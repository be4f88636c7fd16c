#!/usr/bin/env bash
# Makes the environment, then checks format, lint, types and tests.
#
#     bash tests/run.sh [PYTEST ARGUMENTS]       (with arguments, such as -k topk, only pytest runs)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/environment.sh requirements-dev.txt
python=.venv/bin/python

failed=()
check() {
    echo "== $*"
    "$python" -m "$@" || failed+=("$*")
}

if [ $# -eq 0 ]; then
    check ruff format --check
    check ruff check
    check mypy
fi
# Said here, because pytest's closing line is the last.
[ ${#failed[@]} -eq 0 ] || printf '== FAILED: %s\n' "${failed[@]}"
# Files side by side, in the order of tests/budget.py: most of their time is compiling, which keeps one core busy.
# (-n 0 runs them in one process.)
check pytest -q -n auto --dist loadfile --no-loadscope-reorder --durations=10 --durations-min=1 "$@"
[ ${#failed[@]} -eq 0 ]
