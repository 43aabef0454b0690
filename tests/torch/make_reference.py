"""Writes a reference file: one training problem in float64, and what PyTorch itself loses in float32, float16 and
bfloat16 (autocast).

tests/data/cifarresnet8.h5 is made with the default options:  make_reference.py tests/data/cifarresnet8.h5
tests/data/cifarresnet8_lars.h5 with  --lars-eta 0.05 --nesterov 0 --samples 4
"""

import argparse
import math

import h5py
import numpy as np
import torch

import reference_problem as problem
from teskd_torch import HEADS, NETWORKS, LossSettings


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--network", choices=NETWORKS, default="cifarresnet8")
    for name, value in {"base-width": 8, "student-width": 32, "classes": 10, "seed": 0, "batch": 4, "height": 32,
                        "width": 32, "nesterov": 1, "steps": 3, "samples": 16, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in {"lr": 0.01, "momentum": 0.9, "weight-decay": 5e-4, "lars-eta": 0.0}.items():
        parser.add_argument(f"--{name}", type=float, default=value)
    return parser.parse_args()


def settings_from(args):
    names = ("network", *problem.SETTINGS_INT, "lr", "momentum", "weight_decay", "lars_eta")
    losses = LossSettings()
    settings = {k: getattr(args, k) for k in names}
    settings.update({k: getattr(losses, k) for k in LossSettings.__dataclass_fields__})
    return settings


def write_dataset(group, name, value, dtype=np.float64):
    """Small datasets live inside their object header, where they need no block of their own."""
    value = np.asarray(value, dtype)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if value.nbytes < 32768:
        properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(value.shape) if value.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(value.dtype), space, properties)
    group[name][...] = value


def write_summaries(parent, summaries):
    for name, s in summaries.items():
        group = parent.create_group(name)
        group.attrs["l2"], group.attrs["sum"] = s["l2"], s["sum"]
        group.attrs["shape"] = np.array(s["shape"], np.int64)
        write_dataset(group, "index", s["index"], np.int64)
        write_dataset(group, "value", s["value"])


def write_reference(path, settings, result, errors):
    """`errors`: by precision, what PyTorch itself loses in it."""
    # Version 1.8 of the format keeps small groups in one block and is read by every HDF5 in use.
    with h5py.File(path, "w", libver=("v108", "v108")) as f:
        f.attrs["format"], f.attrs["version"], f.attrs["heads"] = "teskd-reference", 1, ",".join(HEADS)
        for key, value in settings.items():
            f.attrs[key] = np.array(value, np.float64) if isinstance(value, tuple) else value
        f.create_dataset("parameters", data=result["parameters"], dtype=h5py.string_dtype())
        write_dataset(f, "target", result["target"], np.int32)
        for key in ("input_head", "logits", "features", "losses", "eval_logits"):
            write_dataset(f, key, result[key])
        write_summaries(f.create_group("gradients"), result["gradients"])
        after = f.create_group("after")
        write_summaries(after, result["after"])
        for name, value in result["running"].items():
            write_dataset(after, name, value)
        for precision, error in errors.items():
            group = f.create_group(f"{precision}_error")
            for key, value in error.items():
                write_dataset(group, key, value)


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    settings = settings_from(args)
    result = problem.run(settings, args.samples)
    ways = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
    errors = {name: problem.errors(problem.run(settings, args.samples, torch.float32, autocast), result)
              for name, autocast in ways.items()}
    write_reference(args.file, settings, result, errors)
    weights = sum(math.prod(s["shape"]) for s in result["after"].values())
    print(f"{args.file}: {args.network}, {len(result['parameters'])} tensors, {weights} weights")
    for precision, error in errors.items():
        for key, value in error.items():
            print(f"{precision:8} {key:12} relative error {np.max(value):.3g}")


if __name__ == "__main__":
    main()
