"""Published runs of hundreds of GPUs against what `teskd plan` says of them.

    python3 tests/bench/published_runs.py --teskd build/teskd          # with the program's own parameters
    python3 tests/bench/published_runs.py --teskd build/teskd --fit    # fits them, also with each run left out

docs/scaling.md names the papers and says what was assumed where they say nothing."""

import argparse
import concurrent.futures
import functools
import json
import os
import pathlib
import subprocess
import tempfile
from dataclasses import dataclass, field

import numpy

PARAMETERS = ("net-share", "hop-us", "noise")
LEAST, MOST = numpy.array([40.0, 1.0, 0.0]), numpy.array([100.0, 40.0, 8.0])
STEPS = numpy.array([4.0, 2.0, 0.5])  # of the differences that stand for derivatives


def resnet50():
    """Weights and millions of multiply-adds of each layer of ResNet-50 at 224x224, 1000 classes."""
    layers, channels = [(3 * 64 * 49, 64 * 3 * 49 * 112**2)], 64
    for width, blocks, side in ((64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)):
        for block in range(blocks):
            first_side = side * 2 if block == 0 and width > 64 else side
            layers += [(channels * width, channels * width * first_side**2), (9 * width**2, 9 * width**2 * side**2),
                       (width * 4 * width, width * 4 * width * side**2)]
            if block == 0:
                layers.append((channels * 4 * width, channels * 4 * width * side**2))
            channels = 4 * width
    return layers + [(channels * 1000, channels * 1000)]


def vgg16():
    layers, channels = [], 3
    for side, widths in ((224, (64, 64)), (112, (128, 128)), (56, (256,) * 3), (28, (512,) * 3), (14, (512,) * 3)):
        for width in widths:
            layers.append((9 * channels * width, 9 * channels * width * side**2))
            channels = width
    return layers + [(n, n) for n in (7 * 7 * 512 * 4096, 4096 * 4096, 4096 * 1000)]


@dataclass
class Run:
    """One published figure. `alone`: it is relative to one GPU, and not to one node."""
    name: str
    efficiency: float
    network: object
    gpu_batch: int
    images_per_second: float  # of one GPU
    nodes: int
    gpus: int
    options: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    alone: bool = False
    asked: bool = True  # of those that the model is fitted to


HALVED = {"run.reduce_16bit": "yes"}


def buckets_of(mib):
    """Gradients in pieces of one size."""
    return {f"run.{name}bucket_mib": mib for name in ("", "first_", "last_")}


PCIE, NVLINK_P100, NVLINK_V100 = 10, 20, 40
RUNS = [
    Run("ResNet-50, 256 P100, 50 GbE, batch 8k (Goyal 2017)", 90, resnet50, 32, 138, 32, 8,
        {"net": 50, "inside": NVLINK_P100, "pattern": "tree"}, buckets_of(0.001)),
    Run("ResNet-50, 1024 P100, FDR, batch 32k (Akiba 2017)", 80, resnet50, 32, 178, 128, 8,
        {"net": 54.5, "inside": PCIE, "pattern": "ring"}, {**buckets_of(65536), **HALVED}),
    Run("ResNet-50, 1088 V100, 2 EDR, batch 34k (Mikami 2018)", 91.6, resnet50, 32, 641, 272, 4,
        {"net": 100, "adapters": 2, "inside": NVLINK_V100, "pattern": "tree"}, {**buckets_of(16), **HALVED}),
    Run("ResNet-50, 2048 P40, 100 GbE, batch 64k (Jia 2018)", 87.9, resnet50, 32, 162, 256, 8,
        {"net": 100, "inside": PCIE, "pattern": "host-ring"}, {**buckets_of(16), **HALVED}),
    Run("VGG-16, 512 Pascal, 25 GbE, batch 32k (Horovod)", 68, vgg16, 64, 154, 128, 4,
        {"net": 25, "inside": PCIE, "pattern": "ring"}, buckets_of(64), alone=True),
    Run("VGG-16, 128 Pascal, 25 GbE, batch 8k (Horovod)", 79, vgg16, 64, 154, 32, 4,
        {"net": 25, "inside": PCIE, "pattern": "ring"}, buckets_of(64), alone=True, asked=False),
    Run("ResNet-50, 1024 P40, 100 GbE, batch 64k (Jia 2018)", 99.2, resnet50, 64, 218, 128, 8,
        {"net": 100, "inside": PCIE, "pattern": "host-ring"}, {**buckets_of(16), **HALVED}, asked=False),
    Run("ResNet-50, 8 P100 in one node (TensorFlow 2017)", 99.0, resnet50, 64, 219, 1, 8,
        {"inside": NVLINK_P100}, buckets_of(16), alone=True, asked=False),
    Run("VGG-16, 8 P100 in one node (TensorFlow 2017)", 87.7, vgg16, 64, 154, 1, 8,
        {"inside": NVLINK_P100}, buckets_of(16), alone=True, asked=False),
]
ASKED = [run for run in RUNS if run.asked]


class Planner:
    """`teskd plan`, asked once for each run and choice of parameters."""

    def __init__(self, teskd, folder):
        self.teskd, self.folder = teskd, pathlib.Path(folder)
        self.efficiency = functools.cache(self.ask)

    def layers(self, network):
        path = self.folder / f"{network.__name__}.csv"
        if not path.exists():
            path.write_text("".join(f"{i},{weights},{macs / 1e6}\n" for i, (weights, macs) in enumerate(network())))
        return path

    def ask(self, index, parameters):
        run = RUNS[index]
        options = {"nodes": run.nodes, "gpus": run.gpus, "gpu-batch": run.gpu_batch,
                   "step-ms": 1e3 * run.gpu_batch / run.images_per_second, "layers": self.layers(run.network),
                   **run.options, **dict(zip(PARAMETERS, parameters))}
        command = [self.teskd, "plan", "--json", *(str(word) for name, value in options.items() for word in (f"--{name}", value)),
                   *(word for name, value in run.settings.items() for word in ("--set", f"{name}={value}"))]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        one, *_ = result["nodes"]
        last = result["nodes"][-1]
        return 100 * last["efficiency"] / (1 if run.alone else one["efficiency"])

    def efficiencies(self, runs, parameters=()):
        parameters = tuple(float(value) for value in parameters)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return numpy.array(list(pool.map(lambda run: self.efficiency(RUNS.index(run), parameters), runs)))


def fit(planner, runs):
    """Least squares by Gauss and Newton, between bounds; a step that makes it worse is halved."""
    published = numpy.array([run.efficiency for run in runs])
    now = numpy.array([80.0, 12.0, 3.0])
    error = planner.efficiencies(runs, now) - published
    for _ in range(8):
        slopes = numpy.array([(planner.efficiencies(runs, now + step) - published - error) / step.sum()
                              for step in numpy.diag(STEPS * numpy.where(now + STEPS > MOST, -1, 1))]).T
        change = -numpy.linalg.lstsq(numpy.vstack([slopes, 0.05 * numpy.diag(1 / STEPS)]),
                                     numpy.concatenate([error, numpy.zeros(3)]), rcond=None)[0]
        for _ in range(4):
            wanted = numpy.clip(now + change, LEAST, MOST).round(2)
            tried = planner.efficiencies(runs, wanted) - published
            if (tried**2).sum() < (error**2).sum():
                now, error = wanted, tried
                break
            change = change / 2
    return now


def print_table(planner, parameters=()):
    for run, predicted in zip(RUNS, planner.efficiencies(RUNS, parameters)):
        note = "" if run.asked else "  (not fitted)"
        print(f"  {run.name:56} {run.efficiency:6.1f} {predicted:6.1f} {predicted - run.efficiency:+6.1f}{note}")


def text(parameters):
    return ", ".join(f"--{name} {value:g}" for name, value in zip(PARAMETERS, parameters))


def print_fits(planner):
    parameters = fit(planner, ASKED)
    print(f"fitted to all: {text(parameters)}")
    print_table(planner, parameters)
    print("each left out of the fit in turn:")
    for out in ASKED:
        parameters = fit(planner, [run for run in ASKED if run is not out])
        predicted = planner.efficiencies([out], parameters)[0]
        print(f"  {out.name:56} {out.efficiency:6.1f} {predicted:6.1f} {predicted - out.efficiency:+6.1f}  {text(parameters)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teskd", default="build/teskd")
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        planner = Planner(arguments.teskd, folder)
        print(f"  {'run':56} {'published':>6} {'model':>6}")
        print_table(planner)
        if arguments.fit:
            print_fits(planner)


if __name__ == "__main__":
    main()
