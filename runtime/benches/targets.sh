#!/usr/bin/env bash
# Reruns the table of whole networks: builds and compiles them, and prints one row for each case, medians of five
# sessions with a kept setup (bcr bench). What it makes stays in target/targets; compiled networks that are there are
# used again, so remove them after a change of the compiler.
#
#   targets.sh [CASE ..]          all cases, or those named: `targets.sh list` lists them
#
# RUNS sets the number of sessions. Planning ResNet-50 takes minutes, DeepLabV3 up to 14 GB.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
bin=${CARGO_TARGET_DIR:-$root/target}/release
out=$root/target/targets
photos=$root/models/fetched
runs=${RUNS:-5}

# case | network | photos, if it needs any | options of bcc compile | options of bcr bench
cases=(
    "r18_100|resnet18_cifar|photos_32|--budget 100%|"
    "r18_6|resnet18_cifar|photos_32|--budget 6% --correct none --ring 32 --weight-frac 10|"
    "r50_100|resnet50_avg|photos_imagenet|--budget 100%|"
    "r50_6|resnet50_avg|photos_imagenet|--budget 6% --menu 2x2,4x4,4x5,5x5,identity,zero --weight-frac 10|"
    "r50_6_wan|resnet50_avg|photos_imagenet|--budget 6% --menu 2x2,4x4,4x5,5x5,identity,zero --weight-frac 10|--network wan"
    "conv|single_conv||--input-bound 2|"
    "relus|million_relus||--input-bound 2|"
    "voc_100|deeplabv3_resnet50_avg|photos_512|--images 2 --budget 100%|"
    "voc_6|deeplabv3_resnet50_avg|photos_512|--images 2 --budget 6% --refine 0 --probes 1 --menu 2x2,4x4,4x5,5x5,identity,zero --weight-frac 10|"
)

if [[ ${1:-} == list ]]; then
    printf '%s\n' "${cases[@]%%|*}"
    exit
fi
wanted=("$@")

want() {
    [[ ${#wanted[@]} -eq 0 ]] && return
    local name
    for name in "${wanted[@]}"; do
        [[ $name == "$1" ]] && return
    done
    return 1
}

row() {
    python3 -c '
import json, sys
name, b = sys.argv[1], json.load(sys.stdin)
f, n, t = b["offline"], b["online"], b["total"]
mb = lambda p: sum(p["measured"]["bytes"].values()) / 1e6
peak = " / ".join("?" if p is None else format(p["median"] / 1e6, ".0f") for p in b["peak_bytes"].values())
cells = [name, *(format(p["seconds"]["median"], ".3f") for p in (f, n, t)), format(mb(f), ".1f"), format(mb(n), ".1f"),
         n["measured"]["rounds"], peak, *(format(p["predicted"]["ratio"], ".2f") for p in (f, n))]
print("| " + " | ".join(map(str, cells)) + " |")' "$1"
}

cargo build --release --workspace
models/scripts/fetch.sh photos
mkdir -p "$out"

echo "| case | offline, s | online, s | both, s | MB offline | MB online | rounds | peak MB: client / server / dealer |" \
    "predicted offline | predicted online |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for entry in "${cases[@]}"; do
    IFS='|' read -r name network calib compile bench <<<"$entry"
    want "$name" || continue
    read -ra compile <<<"$compile"
    read -ra bench <<<"$bench"
    onnx=$out/$network.onnx
    # The same network on another link is compiled once.
    compiled=$out/${name%_wan}
    [[ -s $onnx ]] || "$bin/bcc-models" build "$network" -o "$onnx" >&2
    [[ -z $calib ]] || compile+=(--calib "$photos/$calib.npz")
    [[ -s $compiled/plan.ron ]] || "$bin/bcc" compile "$onnx" "${compile[@]}" -o "$compiled" >&2
    "$bin/bcr" bench "$compiled" --runs "$runs" --json "${bench[@]}" | row "$name"
done
