#!/usr/bin/env bash
# One environment per peer, since their pins conflict: benchmarks/peers/environments.sh [FOLDER]
set -euo pipefail
folder="${1:-.peers}"
here="$(cd "$(dirname "$0")" && pwd)"
make_one() {
    local name="$1"; shift
    [ -e "$folder/$name/.done" ] && return
    python3 -m venv "$folder/$name"
    # torch is pinned, so that every peer runs on the same version.
    "$folder/$name/bin/pip" install --quiet torch==2.13.0 "$@" -c "$here/constraints-$name.txt" && touch "$folder/$name/.done"
}
make_one sentence-transformers 'sentence-transformers[onnx,openvino]' psutil
make_one infinity 'infinity-emb[torch]' psutil
make_one fastembed fastembed psutil
