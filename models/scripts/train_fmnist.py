#!/usr/bin/env python3
"""Trains a CIFAR-style ResNet on Fashion-MNIST and exports it as ONNX.

    train_fmnist.py --depth 20 --epochs 4 --out fmnist_resnet20.onnx
    train_fmnist.py --depth 8 --epochs 3 --out fmnist_resnet8.onnx

Needs numpy and PyTorch 1.13 or later (the CPU build is enough; newer releases want the package onnx
for the export), and models/fetched/fmnist.npz, which `fetch.sh fmnist` makes. On one core an epoch
takes about 90 s at depth 20 and 40 s at depth 8. Batch norm is folded into the convolutions by the
export; input x [1,1,28,28], output y [1,10].
"""

import argparse
import inspect
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fmnist import normalise

FETCHED = Path(__file__).resolve().parent.parent / "fetched"
BATCH = 128
SHIFT = 2


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution where shapes differ."""

    def __init__(self, inner, outer, stride):
        super().__init__()
        self.c1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(outer)
        self.c2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(outer)
        self.sc = nn.Identity()
        if stride != 1 or inner != outer:
            self.sc = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x):
        y = functional.relu(self.b1(self.c1(x)))
        return functional.relu(self.b2(self.c2(y)) + self.sc(x))


def resnet(depth, width):
    """ResNet of 6n + 2 layers: three stages of n blocks, `width`, 2 and 4 times `width` channels."""
    if depth < 8 or depth % 6 != 2:
        raise SystemExit(f"depth {depth} is not 6n + 2")
    layers = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inner = width
    for stage in range(3):
        outer = width << stage
        for index in range(depth // 6):
            layers.append(Block(inner, outer, 2 if stage > 0 and index == 0 else 1))
            inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 10))


def augment(x, background):
    """Flips half of the images and shifts each by up to SHIFT pixels."""
    count, _, height, width = x.shape
    flip = torch.rand(count) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    padded = functional.pad(x, [SHIFT] * 4, value=background)
    dy, dx = torch.randint(0, 2 * SHIFT + 1, (2, count, 1, 1))
    rows = dy + torch.arange(height)[None, :, None]
    columns = dx + torch.arange(width)[None, None, :]
    return padded[torch.arange(count)[:, None, None], 0, rows, columns][:, None]


def train(model, x, y, epochs, max_steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=steps, cycle_momentum=False
    )
    background = float(x.min())
    model.train()
    step = 0
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            pick = order[start : start + BATCH]
            loss = functional.cross_entropy(model(augment(x[pick], background)), y[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step % 50 == 0:
                print(f"epoch {epoch + 1} step {step}/{steps} loss {loss.item():.3f}", flush=True)
            if step == max_steps:
                return


@torch.no_grad()
def accuracy(model, x, y):
    model.eval()
    right = sum((model(a).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500)))
    return right / len(x)


def export(model, path):
    model.eval()
    options = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    torch.onnx.export(
        model,
        torch.zeros(1, 1, 28, 28),
        str(path),
        opset_version=17,
        input_names=["x"],
        output_names=["y"],
        **options,
    )


def main():
    parser = argparse.ArgumentParser(description="Trains a small ResNet on Fashion-MNIST.")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-steps", type=int, help="stop early, to try the script out")
    parser.add_argument("--data", type=Path, default=FETCHED / "fmnist.npz")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not args.data.is_file():
        parser.error(f"{args.data} is missing: run fetch.sh fmnist")

    torch.manual_seed(args.seed)
    with np.load(args.data) as data:
        train_x, test_x = (torch.from_numpy(normalise(data[k])) for k in ("train_x", "test_x"))
        train_y, test_y = (torch.from_numpy(data[k]) for k in ("train_y", "test_y"))
    model = resnet(args.depth, args.width)
    train(model, train_x, train_y, args.epochs, args.max_steps)
    print(f"test accuracy {100 * accuracy(model, test_x, test_y):.2f} %")
    export(model, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
