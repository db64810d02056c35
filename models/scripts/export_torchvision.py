#!/usr/bin/env python3
"""Networks of torchvision, with random weights, as PyTorch's exporters write them. Needs torch and torchvision.

    export_torchvision.py OUT_DIR [NAME...]

For every network NAME (all by default) are written

    torchvision_NAME_script.onnx   by the TorchScript exporter
    torchvision_NAME_dynamo.onnx   by the torch.export-based one, which torch 2.5 and later have
    torchvision_NAME.npz           x float32, seeded noise, and y float32, what PyTorch makes of it

and the operators of each file are listed where the package onnx is installed. Batch-norm statistics are those of
noise, with scales and shifts drawn around those of trained networks, so that activations have a natural range.
"""

import inspect
import logging
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

SEED = 1


class Segmentation(nn.Module):
    """The map of logits alone of a segmentation model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)["out"]


def deeplab():
    return Segmentation(torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None))


# Name: model, height and width, options of the TorchScript exporter, options of the other.
BATCH = {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}}
UNFOLDED = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
NETWORKS = {
    "resnet18": (torchvision.models.resnet18, (224, 224), {"opset_version": 9, **UNFOLDED}, {"external_data": True}),
    "resnet50": (torchvision.models.resnet50, (224, 224), {"opset_version": 13}, {"external_data": False}),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, (224, 224), {"opset_version": 11, **BATCH}, {"external_data": False}),
    "deeplabv3_resnet50": (deeplab, (160, 224), {"opset_version": 17, **BATCH}, {"external_data": False}),
}


def calibrate(model, generator):
    """Draws scales and shifts of every batch norm and measures its statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.2, generator=generator)
        nn.init.normal_(norm.bias, 0.0, 0.2, generator=generator)
        norm.reset_running_stats()
        norm.momentum = None  # plain means over all batches
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 96, 96, generator=generator))
    return model.eval()


def describe(path):
    try:
        import onnx
    except ImportError:
        print(f"{path.name}: written")
        return
    model = onnx.load(path, load_external_data=False)
    ops = Counter(node.op_type for node in model.graph.node)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    listed = ", ".join(f"{op} {count}" for op, count in sorted(ops.items()))
    print(f"{path.name}: opset {opset}, IR {model.ir_version}, {listed}")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    out, names = Path(sys.argv[1]), sys.argv[2:] or list(NETWORKS)
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        sys.exit(f"export_torchvision.py: no network {', '.join(unknown)}: there are {', '.join(NETWORKS)}")
    out.mkdir(parents=True, exist_ok=True)
    has_dynamo = "dynamo" in inspect.signature(torch.onnx.export).parameters
    if not has_dynamo:
        print(f"torch {torch.__version__} lacks the torch.export-based exporter: 2.5 or later has it")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    for name in names:
        make, size, script, dynamo = NETWORKS[name]
        torch.manual_seed(SEED)
        generator = torch.Generator().manual_seed(SEED)
        model = calibrate(make(), generator)
        x = torch.randn(2, 3, *size, generator=generator)
        with torch.no_grad():
            y = model(x)
        np.savez_compressed(out / f"torchvision_{name}.npz", x=x.numpy(), y=y.numpy())
        common = {"input_names": ["x"], "output_names": ["y"]}
        path = out / f"torchvision_{name}_script.onnx"
        legacy = {"dynamo": False} if has_dynamo else {}
        torch.onnx.export(model, x[:1], path.as_posix(), **common, **script, **legacy)
        describe(path)
        if has_dynamo:
            path = out / f"torchvision_{name}_dynamo.onnx"
            torch.onnx.export(model, (x[:1],), path.as_posix(), dynamo=True, verbose=False, **common, **dynamo)
            describe(path)


if __name__ == "__main__":
    main()
