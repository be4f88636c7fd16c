#!/usr/bin/env bash
# Fetches what a GPU machine without a network lacks of requirements.txt into tests/gpu_check/wheels (ignored by git):
# wheels for Python 3.12 on Linux, x86-64. That machine has JAX, flax, optax, orbax-checkpoint, PyTorch, tokenizers,
# tiktoken, safetensors, scipy, matplotlib and what they need (PyTorch needs jinja2).
#
#     bash tests/gpu_check/wheels.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$root/tests/gpu_check/wheels
most=$((48 * 1024 * 1024)) # so that wheels and checkout together stay below 64 MiB
python=${PYTHON:-$root/.venv/bin/python}
names='absl-py alembic array_record colorlog grain Mako ml_collections msgspec optuna portpicker SQLAlchemy tensorboardX'

platforms=()
for glibc in 2_39 2_36 2_34 2_31 2_28 2_27 2_26 2_24 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
pins=()
for name in $names; do pins+=("$(grep -i "^$name==" "$root/constraints.txt")"); done

mkdir -p "$folder"
rm -f "$folder"/*.whl
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]}" --platform manylinux2014_x86_64 --dest "$folder" "${pins[@]}"
size=$(cat "$folder"/*.whl | wc -c)
printf 'wheels: %d files, %d KiB in %s\n' "$(ls "$folder" | wc -l)" $((size / 1024)) "$folder"
if [ "$size" -gt "$most" ]; then
    echo "wheels: more than $((most / 1024)) KiB" >&2
    exit 1
fi
