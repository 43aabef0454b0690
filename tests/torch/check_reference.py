"""Checks the PyTorch network of teskd_torch.py against a reference file: check_reference.py FILE.h5

Builds the network in float64, generates weights and input, runs the steps and compares every stored value.
"""

import argparse
import sys

import h5py
import numpy as np
import torch

import reference_problem as problem


def read_summaries(group):
    return {name: {"l2": float(g.attrs["l2"]), "sum": float(g.attrs["sum"]), "shape": tuple(g.attrs["shape"]),
                   "index": g["index"][:], "value": g["value"][:]}
            for name, g in group.items() if isinstance(g, h5py.Group)}


def read_reference(path):
    """(settings, result): the problem and the stored result, in the form of reference_problem.run."""
    with h5py.File(path) as f:
        result = {k: f[k][:] for k in ("target", "input_head", "logits", "features", "losses", "eval_logits")}
        result["parameters"] = list(f["parameters"].asstr()[:])
        result["gradients"], result["after"] = read_summaries(f["gradients"]), read_summaries(f["after"])
        result["running"] = {n: d[:] for n, d in f["after"].items() if isinstance(d, h5py.Dataset)}
        return problem.settings_of(f.attrs), result


def check_summaries(kind, got, want, tolerance):
    """Norms, sums and samples of each tensor, against the larger of its own norm and a small share of the whole's."""
    whole = np.sqrt(sum(w["l2"] ** 2 for w in want.values()))
    worst, bad = 0.0, []
    for name, w in want.items():
        g = got[name]
        if g["shape"] != w["shape"] or not np.array_equal(g["index"], w["index"]):
            bad.append(f"{kind}/{name}: shape or sampled indices differ")
            continue
        # Each is scaled to the size it would have if all elements were alike: a sum of n grows with sqrt(n).
        size = np.prod(w["shape"])
        scale = max(w["l2"], 1e-6 * whole)
        off = [abs(g["l2"] - w["l2"]) / scale, abs(g["sum"] - w["sum"]) / (scale * np.sqrt(size)),
               np.linalg.norm(g["value"] - w["value"]) / (scale * np.sqrt(len(w["value"]) / size))]
        worst = max(worst, *off)
        if max(off) > tolerance:
            bad.append(f"{kind}/{name}: relative error {max(off):.3g}")
    return worst, bad


def check(got, want, tolerance):
    """Prints one line for each kind of value; returns the list of what differs."""
    bad = []
    for key in ("parameters", "target", "input_head"):
        same = np.array_equal(got[key], want[key])
        print(f"{key:12} {'equal' if same else 'DIFFER'}")
        bad += [] if same else [f"{key} differ"]
    for key in ("gradients", "after", "running"):
        if set(got[key]) != set(want[key]):
            return bad + [f"{key}: other tensors: {sorted(set(got[key]) ^ set(want[key]))[:4]}"]
    for key, error in problem.errors(got, want).items():
        print(f"{key:12} relative error {np.max(error):.3g}")
        bad += [] if np.max(error) <= tolerance else [f"{key}: relative error {np.max(error):.3g}"]
    for kind in ("gradients", "after"):
        worst, names = check_summaries(kind, got[kind], want[kind], tolerance)
        print(f"{kind:12} worst tensor {worst:.3g}")
        bad += names
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--tolerance", type=float, default=1e-7, help="largest relative error (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="PyTorch threads (default: its own)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    settings, want = read_reference(args.file)
    samples = {name: len(w["index"]) for name, w in want["gradients"].items()}
    bad = check(problem.run(settings, samples), want, args.tolerance)
    for line in bad[:20]:
        print(line, file=sys.stderr)
    print("FAILED" if bad else "ok", f"{settings['network']} against {args.file}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
