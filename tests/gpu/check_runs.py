#!/usr/bin/env python3
"""Checks of whole runs on a device; Python's standard library is enough.

    reference  each reference file in each precision: every line within its bound
    rewrites   the errors with the exact rewrites are at most 1.5 times those without any, and without each of them
    repeat     two runs in deterministic mode leave the same bits
    capture    a run that replays captured steps leaves the same bits as one that launches every kernel
    resume     a stopped and resumed run leaves the same bits as an uninterrupted one
    nccl       sums by NCCL over one rank change no bit
    ranks      two ranks on one device take the steps of one rank, the same in every run

The last line, "figure: ...", says how well it went. Exit code 77: there is nothing to check on this device.
"""

import argparse
import array
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

SKIPPED = 77
REWRITES = ("rewrite_upsample", "rewrite_fuse", "rewrite_patch", "rewrite_upsample_bn", "rewrite_linear_bn",
            "rewrite_bias")
WORST_RATIO = 1.5  # of the errors with and without a rewrite
WORST_UPDATE = 0.02  # of what two ranks' updates are off from one rank's, relative
STEPS = 20  # of a run; two epochs

# What fits the device: (network and its batch for bitwise checks, a small one for numbers, precisions of both kinds).
DEVICES = {
    "cuda": {"bitwise": {"model.network": "cifarresnet18", "train.batch": 64},
             "small": {"model.network": "cifarresnet8", "train.batch": 64},
             "precisions": ("fp32", "tf32", "fp16", "bf16"), "rewritten": ("fp16", "bf16"),
             "repeated": ("fp32", "fp16", "bf16")},
    "cpu": {"bitwise": {"model.network": "cifarresnet8", "model.width": 4, "train.batch": 20, "run.threads": 1},
            "small": {"model.network": "cifarresnet8", "model.width": 4, "train.batch": 20, "run.threads": 1},
            "precisions": ("fp32",), "rewritten": ("fp32",), "repeated": ("fp32",)},
}


class CheckFailed(Exception):
    pass


class NothingToCheck(Exception):
    pass


def report(text):
    print(text, flush=True)


class Runner:
    """Runs the program; every run has a folder of its own under `work`."""

    def __init__(self, args):
        self.args = args
        self.device = DEVICES[args.device]
        self.work = pathlib.Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)

    def call(self, *words, ranks=1, codes=(0,)):
        launcher = []
        if ranks > 1:
            launcher = [self.args.mpirun, "-np", str(ranks), "--oversubscribe", "--bind-to", "none"]
        command = [*launcher, self.args.teskd, *map(str, words)]
        report("$ " + " ".join(command))
        environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                              check=False)
        report(done.stdout.rstrip())
        if done.returncode not in codes:
            raise CheckFailed(f"exit code {done.returncode}")
        return done.stdout

    def images(self):
        batch = self.device["bitwise"]["train.batch"]
        folder = self.work / "images"
        if not folder.exists():
            self.call("data", "synth", "--out", folder, "--train-images", STEPS // 2 * batch, "--test-images", batch)
        return folder

    def train(self, name, network, changes, ranks=1, resume=False):
        """Twenty steps with an evaluation after each ten, in deterministic mode."""
        folder = self.work / name
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        settings = {**network, "data.kind": "cifar10", "data.path": self.images(), "train.epochs": 2,
                    "train.lr": 0.05, "train.schedule": "cosine", "run.device": self.args.device,
                    "run.deterministic": "yes", "run.plan_cache": folder / "plans", "log.every": 5,
                    "output.dir": folder, **changes}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.call("train", *words, *(["--resume", "auto"] if resume else []), ranks=ranks)
        return folder


# ---- what a run leaves ----

def read_weights(runner, folder):
    """{name: bytes of float32} of all heads, and running statistics."""
    path = folder / "weights.safetensors"
    runner.call("export", "--checkpoint", folder / "last.h5", "--format", "safetensors", "--all-heads", "--out", path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    body = data[8 + size:]
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items() if entry["dtype"] == "F32"}


def read_metrics(folder, kinds):
    """The lines of metrics.jsonl of these kinds, without what depends on the clock and without the evaluation in the
    middle of an epoch with which a run ends there."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in event.items() if key not in ("seconds", "images_per_second")}
            for event in events if event["event"] in kinds
            and not (event["event"] == "epoch" and event["step"] < STEPS // 2)]


def assert_same(runner, found, expected, kinds=("step", "epoch")):
    """Weights and metrics of two runs, to the last bit."""
    a, b = read_weights(runner, found), read_weights(runner, expected)
    if a.keys() != b.keys() or not a:
        raise CheckFailed(f"{found.name} and {expected.name} have other tensors")
    different = [name for name in a if a[name] != b[name]]
    if different:
        raise CheckFailed(f"{found.name} and {expected.name} differ in {len(different)} of {len(a)} tensors, "
                          f"the first is {different[0]}")
    x, y = read_metrics(found, kinds), read_metrics(expected, kinds)
    if x != y or not x:
        raise CheckFailed(f"the weights of {found.name} and {expected.name} are the same, their metrics are not")
    report(f"{found.name} and {expected.name}: {len(a)} tensors and {len(x)} lines of metrics are the same")


def as_numbers(weights):
    numbers = array.array("f")
    for name in sorted(weights):
        numbers.frombytes(weights[name])
    return numbers


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))


# ---- against reference files ----

def compare(runner, path, precision, *assignments, codes=(0,)):
    """{line: (error, bound)} of `teskd reference`."""
    words = [word for a in (f"run.precision={precision}", *assignments) for word in ("--set", a)]
    out = runner.call("reference", path, "--device", runner.args.device, *words, codes=codes)
    found = re.findall(r"^ +(\S.*?) +(\S+) +(\S+)  (?:ok|OUT OF BOUNDS)$", out, re.MULTILINE)
    lines = {what.strip(): (float(error), float(bound)) for what, error, bound in found}
    if len(lines) < 40:
        raise CheckFailed(f"{path}: only {len(lines)} lines of comparison")
    return lines


def check_reference(runner):
    worst, failed = {}, []
    for path in runner.args.files:
        for precision in runner.device["precisions"]:
            lines = compare(runner, path, precision, codes=(0, 1))
            out = [what for what, (error, bound) in lines.items() if not error <= bound]
            failed += [f"{path} in {precision}: {what}" for what in out]
            shares = {what: error / bound for what, (error, bound) in lines.items() if bound > 0}
            what = max(shares, key=shares.get)
            worst[precision] = max(worst.get(precision, (0, "")), (shares[what], what))
    for line in failed:
        report(f"OUT OF BOUNDS: {line}")
    figure = ", ".join(f"{precision} {share:.2f} ({what})" for precision, (share, what) in worst.items())
    if failed:
        raise CheckFailed(f"{len(failed)} lines out of bounds; largest error by bound: {figure}")
    return f"largest error by bound: {figure}"


def pooled(lines):
    """The errors of the first step's tensors, those of the heads as one. Later steps inherit which ReLU units fell on
    the other side, and single losses may be right by luck."""
    groups = {}
    for what, (error, _) in lines.items():
        group = what.split(" of ")[0]
        if group in ("logits", "features", "gradients"):
            groups.setdefault(group, []).append(error)
    return {group: math.sqrt(sum(e * e for e in errors) / len(errors)) for group, errors in groups.items()}


def check_rewrites(runner):
    without = {"all": [f"run.{rewrite}=no" for rewrite in REWRITES],
               **{rewrite: [f"run.{rewrite}=no"] for rewrite in REWRITES}}
    ratios = {}
    for path in runner.args.files:
        for precision in runner.device["rewritten"]:
            rewritten = pooled(compare(runner, path, precision, codes=(0, 1)))
            for case, assignments in without.items():
                for group, error in pooled(compare(runner, path, precision, *assignments, codes=(0, 1))).items():
                    ratios[f"{group}, {case}, {precision}"] = rewritten[group] / error
    for what, ratio in sorted(ratios.items(), key=lambda item: -item[1]):
        report(f"  {ratio:8.3f} {what}")
    worst = max(ratios, key=ratios.get)
    figure = f"largest error with by without: {ratios[worst]:.2f} ({worst})"
    if not ratios[worst] <= WORST_RATIO:
        raise CheckFailed(figure)
    return figure


# ---- bit for bit ----

def check_repeat(runner):
    for precision in runner.device["repeated"]:
        change = {"run.precision": precision}
        first = runner.train(f"{precision}-first", runner.device["bitwise"], change)
        assert_same(runner, runner.train(f"{precision}-second", runner.device["bitwise"], change), first)
    return f"the same bits after {STEPS} steps: {', '.join(runner.device['repeated'])}"


def check_capture(runner):
    for precision in runner.device["repeated"]:
        runs = [runner.train(f"{precision}-capture-{capture}", runner.device["bitwise"],
                             {"run.precision": precision, "run.capture": capture}) for capture in ("yes", "no")]
        assert_same(runner, *runs)
    return f"the same bits after {STEPS} steps: {', '.join(runner.device['repeated'])}"


def check_resume(runner):
    precision = runner.device["repeated"][-1] if runner.args.device == "cpu" else "fp16"
    change = {"run.precision": precision}
    straight = runner.train("straight", runner.device["bitwise"], change)
    for stop in (STEPS // 2, STEPS * 3 // 4):  # between two epochs, and within one
        name = f"stopped-{stop}"
        runner.train(name, runner.device["bitwise"], {**change, "train.max_steps": stop})
        assert_same(runner, runner.train(name, runner.device["bitwise"], change, resume=True), straight, ("epoch",))
    return f"the same bits after {STEPS // 2}+{STEPS // 2} and {STEPS * 3 // 4}+{STEPS // 4} steps, {precision}"


def check_nccl(runner):
    if runner.args.device != "cuda":
        raise NothingToCheck("needs a GPU")
    change = {"run.precision": "fp16"}
    plain = runner.train("without-sums", runner.device["bitwise"], change)
    summed = runner.train("nccl", runner.device["bitwise"], {**change, "run.reduction": "nccl"})
    assert_same(runner, summed, plain)
    return f"the same bits after {STEPS} steps as without sums"


def check_ranks(runner):
    # Few and small steps: each multiplies what rounding made different.
    change = {"run.precision": "fp32", "run.sync_bn": "yes", "train.max_steps": 4, "train.lr": 0.01}
    small = runner.device["small"]
    start = as_numbers(read_weights(runner, runner.train("begin", small, {**change, "train.max_steps": 1})))
    alone = as_numbers(read_weights(runner, runner.train("one-rank", small, change)))
    runs = [runner.train(f"two-ranks-{i}", small, {**change, "run.reduction": "mpi"}, ranks=2) for i in (1, 2)]
    assert_same(runner, *runs)
    together = as_numbers(read_weights(runner, runs[0]))
    error = distance(together, alone) / distance(alone, start)
    figure = f"updates of two ranks are off by {error:.2g} from one rank's"
    if not error <= WORST_UPDATE:
        raise CheckFailed(f"{figure}, more than {WORST_UPDATE}")
    return figure


CHECKS = {"reference": check_reference, "rewrites": check_rewrites, "repeat": check_repeat, "capture": check_capture,
          "resume": check_resume, "nccl": check_nccl, "ranks": check_ranks}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("files", nargs="*", help="reference files, for reference and rewrites")
    parser.add_argument("--teskd", default="build/teskd", help="the program")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--work", required=True, help="folder for the runs")
    args = parser.parse_args()
    if args.check in ("reference", "rewrites") and not args.files:
        parser.error("no reference files")
    try:
        figure = CHECKS[args.check](Runner(args))
    except CheckFailed as failure:
        report(f"figure: {failure}")
        return 1
    except NothingToCheck as reason:
        report(f"figure: {reason}")
        return SKIPPED
    report(f"figure: {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
