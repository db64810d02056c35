#!/usr/bin/env python3
"""Photos to network inputs. Needs numpy and pillow.

    photos.py OUT_DIR PHOTO...

Every photo is scaled to a short side of S pixels and cut to the centre SxS. Written are

    photos_nsfw.npz       x float32 [N,224,224,3], BGR minus 104, 117, 123
    photos_imagenet.npz   x float32 [N,3,224,224], RGB in 0..1, minus the ImageNet mean, divided by
                          its standard deviation
    photos_512.npz        the same, x float32 [N,3,512,512]
    photos_32.npz         the same, x float32 [N,3,32,32]

each with y int64 [N], the ImageNet class at the end of the file name, or -1.
"""

import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image

BGR_MEAN = np.array([104, 117, 123], dtype=np.float32)
RGB_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
RGB_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def load(path, side):
    """RGB float32 [side,side,3] in 0..255."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32)


def label(path):
    match = re.fullmatch(r"imagenet_\d+_(\d+)", path.stem)
    return int(match[1]) if match else -1


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out_dir, paths = Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]]
    y = np.array([label(path) for path in paths], dtype=np.int64)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for name, side in [("imagenet", 224), ("512", 512), ("32", 32)]:
            rgb = np.stack([load(path, side) for path in paths])
            nchw = ((rgb / 255 - RGB_MEAN) / RGB_STD).transpose(0, 3, 1, 2)
            np.savez_compressed(out_dir / f"photos_{name}.npz", x=np.ascontiguousarray(nchw), y=y)
            if side == 224:
                bgr = rgb[..., ::-1] - BGR_MEAN
                np.savez_compressed(out_dir / "photos_nsfw.npz", x=np.ascontiguousarray(bgr), y=y)
    except OSError as error:
        sys.exit(f"photos.py: {error}")


if __name__ == "__main__":
    main()
