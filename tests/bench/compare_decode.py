#!/usr/bin/env python3
"""Decoding as training does it, in this program and in what others use: a random crop of a JPEG, scaled to 224x224.

All ways take turns, round by round, on the same files with the same number of threads; the figure of each is the median
of its rounds. Ways that cannot be imported are left out: Pillow, torchvision, NVIDIA DALI (on the CPU)."""

import argparse
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

SIDE = 224
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
BUILD = pathlib.Path(__file__).resolve().parents[2] / "build"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", required=True, help="folder of images, at any depth")
    parser.add_argument("--bench", default=BUILD / "tests/bench/decode_bench", help="decode_bench of a build")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, each measured on its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=2, help="over all files, in a round")
    parser.add_argument("--reencode", action="store_true", help="first make the longest side 500, with quality 90")
    parser.add_argument("--ways", default="teskd,pillow,torchvision,dali")
    return parser.parse_args()


class Teskd:
    """decode_bench, a process a round; it reads the files before its clock starts."""

    def __init__(self, files, threads, args):
        self.command = [args.bench, os.path.join(args.scratch, "list"), str(threads), str(args.passes)]
        pathlib.Path(self.command[1]).write_text("".join(f"{f}\n" for f in files), encoding="utf-8")
        self.name = f"teskd ({self.run().split()[-1]})"

    def run(self):
        return subprocess.run(self.command, check=True, capture_output=True, text=True).stdout

    def measure(self):
        words = self.run().split()
        assert words[2] == "0", "files were refused"
        return float(words[0])


class Threads:
    """A function of a file's bytes, called by that many threads."""

    def __init__(self, files, threads, args):
        self.stored = [pathlib.Path(f).read_bytes() for f in files] * args.passes
        self.pool = ThreadPoolExecutor(threads)

    def measure(self):
        begin = time.perf_counter()
        for _ in self.pool.map(self.image, self.stored):
            pass
        return len(self.stored) / (time.perf_counter() - begin)


def random_crop(width, height):
    for _ in range(10):
        area = width * height * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w, h = width, height
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    return left, top, left + w, top + h


class Pillow(Threads):
    def __init__(self, *arguments):
        import PIL
        import PIL.features
        super().__init__(*arguments)
        self.name = f"Pillow {PIL.__version__}, libjpeg-turbo {PIL.features.version('libjpeg_turbo')}"

    @staticmethod
    def image(stored):
        import io
        from PIL import Image
        image = Image.open(io.BytesIO(stored)).convert("RGB")
        return image.crop(random_crop(*image.size)).resize((SIDE, SIDE), Image.BILINEAR).tobytes()


class Torchvision(Threads):
    """The usual loader and transform, to the tensor of bytes that a batch is made of."""

    def __init__(self, *arguments):
        import torch
        import torchvision
        from torchvision.transforms import v2
        super().__init__(*arguments)
        torch.set_num_threads(1)
        self.name = f"torchvision {torchvision.__version__}"
        self.transform = v2.Compose([v2.RandomResizedCrop(SIDE, SCALE, RATIO), v2.PILToTensor()])

    def image(self, stored):
        import io
        from PIL import Image
        return self.transform(Image.open(io.BytesIO(stored)).convert("RGB"))


class Dali:
    """A pipeline without a GPU. What it prepares in advance is used up before the clock starts."""

    BATCH, BEFORE = 40, 3

    def __init__(self, files, threads, args):
        import nvidia.dali
        from nvidia.dali import fn, types
        self.name = f"DALI {nvidia.dali.__version__}"
        self.runs = math.ceil(len(files) * args.passes / self.BATCH)
        self.pipeline = nvidia.dali.Pipeline(self.BATCH, threads, device_id=None)
        with self.pipeline:
            stored, _ = fn.readers.file(files=[str(f) for f in files], random_shuffle=False)
            image = fn.decoders.image_random_crop(stored, device="cpu", random_area=SCALE, random_aspect_ratio=RATIO)
            image = fn.resize(image, size=(SIDE, SIDE), interp_type=types.INTERP_LINEAR, antialias=True)
            self.pipeline.set_outputs(image)
        self.pipeline.build()

    def measure(self):
        for _ in range(self.BEFORE):
            self.pipeline.run()
        begin = time.perf_counter()
        for _ in range(self.runs):
            self.pipeline.run()
        rate = self.runs * self.BATCH / (time.perf_counter() - begin)
        time.sleep(0.5)  # it prepares the next ones
        return rate


WAYS = {"teskd": Teskd, "pillow": Pillow, "torchvision": Torchvision, "dali": Dali}


def reencode(files, folder):
    """Other files, as `longest side 500, quality 90` leaves them."""
    from PIL import Image
    made = []
    for number, path in enumerate(files):
        image = Image.open(path).convert("RGB")
        factor = min(1, 500 / max(image.size))
        size = tuple(max(1, round(side * factor)) for side in image.size)
        made.append(os.path.join(folder, f"{number}.jpeg"))
        image.resize(size, Image.BILINEAR).save(made[-1], quality=90)
    return made


def build_ways(files, threads, args):
    ways = {}
    for name in args.ways.split(","):
        try:
            ways[name] = WAYS[name](files, threads, args)
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    return ways


def measure(files, threads, args):
    """{way: [images/s of each round]}, printed as a table."""
    ways = build_ways(files, threads, args)
    rates = {name: [] for name in ways}
    for way in ways.values():  # warm up
        way.measure()
    for _ in range(args.rounds):
        for name, way in ways.items():
            rates[name].append(way.measure())
    print(f"\n{threads} thread{'s' if threads > 1 else ''}, images/s: median (least-most) of {args.rounds} rounds")
    own = statistics.median(rates["teskd"]) if "teskd" in rates else None
    for name, way in ways.items():
        middle = statistics.median(rates[name])
        ratio = f"   teskd is {own / middle:.2f} times as fast" if own and name != "teskd" else ""
        print(f"  {way.name:42} {middle:7.0f} ({min(rates[name]):.0f}-{max(rates[name]):.0f}){ratio}", flush=True)
    return rates


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown processor"


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as args.scratch:
        files = sorted(str(p) for p in pathlib.Path(args.files).rglob("*") if p.is_file())
        if args.reencode:
            files = reencode(files, args.scratch)
        print(f"{len(files)} files of {sum(map(os.path.getsize, files)) / len(files) / 1e3:.0f} KB, {processor()}")
        measured = {int(t): measure(files, int(t), args) for t in args.threads.split(",")}
        counts = sorted(measured)
        for name in measured[counts[0]]:
            if len(counts) > 1:
                several = statistics.median(measured[counts[-1]][name]) / statistics.median(measured[counts[0]][name])
                print(f"{name}: {counts[-1]} threads {several:.2f} times as fast as {counts[0]}")


if __name__ == "__main__":
    main()
