#!/usr/bin/env python3
"""Fashion-MNIST: gzipped IDX files to NPZ. Needs numpy.

    fmnist.py full IDX_DIR OUT_DIR    fmnist.npz (uint8 pixels) and fmnist_test_full.npz (normalised)
    fmnist.py small IDX_DIR OUT_DIR   fmnist_test.npz (512 test images), fmnist_calib.npz (256 training images)

IDX_DIR holds train-images-idx3-ubyte.gz and its three companions, as the Debian package
dataset-fashion-mnist installs them.
"""

import gzip
import struct
import sys
from pathlib import Path

import numpy as np

MEAN, STD = 0.2860, 0.3530
TEST_IMAGES, CALIB_IMAGES = 512, 256


def read_idx(path):
    """The uint8 array of a gzipped IDX file."""
    with gzip.open(path, "rb") as file:
        zeros, dtype, rank = struct.unpack(">HBB", file.read(4))
        if zeros != 0 or dtype != 8:
            raise ValueError(f"{path} is no IDX file of unsigned bytes")
        shape = struct.unpack(f">{rank}I", file.read(4 * rank))
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(shape)


def read_split(idx_dir, split):
    """Pixels uint8 [N,28,28] and labels int64 [N] of split "train" or "t10k"."""
    x = read_idx(Path(idx_dir) / f"{split}-images-idx3-ubyte.gz")
    y = read_idx(Path(idx_dir) / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    if len(x) != len(y):
        raise ValueError(f"{split}: {len(x)} images but {len(y)} labels")
    return x, y


def normalise(pixels):
    """uint8 [N,28,28] to the networks' input, float32 [N,1,28,28]."""
    return ((pixels[:, None].astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def write_full(idx_dir, out_dir):
    train_x, train_y = read_split(idx_dir, "train")
    test_x, test_y = read_split(idx_dir, "t10k")
    np.savez_compressed(
        out_dir / "fmnist.npz", train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y
    )
    np.savez_compressed(out_dir / "fmnist_test_full.npz", x=normalise(test_x), y=test_y)


def write_small(idx_dir, out_dir):
    for name, split, count in (
        ("fmnist_test.npz", "t10k", TEST_IMAGES),
        ("fmnist_calib.npz", "train", CALIB_IMAGES),
    ):
        x, y = read_split(idx_dir, split)
        np.savez_compressed(out_dir / name, x=normalise(x[:count]), y=y[:count])


def main():
    commands = {"full": write_full, "small": write_small}
    if len(sys.argv) != 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    out_dir = Path(sys.argv[3])
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        commands[sys.argv[1]](Path(sys.argv[2]), out_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"fmnist.py: {error}")


if __name__ == "__main__":
    main()
