#!/usr/bin/env bash
# Pins requirements/*.in to requirements/*.txt, keeping the pins that are there; UPGRADE=1 looks for newer versions.
#
# The files name no index, no hashes and no CUDA packages: torch itself pins those it needs, so that one file serves
# CUDA machines and, with UV_TORCH_BACKEND=cpu, machines without a GPU.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
uv="${UV:-../.venv/bin/uv}"
options=(--quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links)
[[ -n "${UPGRADE:-}" ]] && options+=(--upgrade)

cuda=()
while read -r name; do
    cuda+=(--no-emit-package "$name")
done < <("$uv" pip compile "${options[@]}" --override overrides.txt worker.in 2>/dev/null |
    sed -nE 's/^((nvidia|cuda)-[a-z0-9-]+|triton)==.*/\1/p')

for name in base worker dev; do
    "$uv" pip compile "${options[@]}" "${cuda[@]}" --override overrides.txt "$name.in" --output-file "$name.txt"
done
"$uv" pip compile "${options[@]}" labelstudio.in --output-file labelstudio.txt
