"""Decoding, random crop and scaling to 224x224: this program beside Pillow, torchvision and DALI's CPU pipeline.

compare_decode.py BUILD FOLDER [--passes N] [--rounds N] [--threads 1,2] [--reencode]

All decode the same files from memory with as many threads, in turns. What is not installed is left out and said.
"""

import argparse
import io
import math
import os
import pathlib
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time

from PIL import Image

SIDE = 224
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def random_crop(width, height, rng):
    """torchvision's RandomResizedCrop, so that Pillow alone can be measured."""
    for _ in range(10):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, width - w), rng.randint(0, height - h), w, h
    return 0, 0, width, height


def with_pillow(files, seed):
    rng = random.Random(seed)
    for data in files:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        x, y, w, h = random_crop(*image.size, rng)
        image.crop((x, y, x + w, y + h)).resize((SIDE, SIDE), Image.BILINEAR).tobytes()


def torchvision_work():
    try:
        from torchvision import transforms
    except ImportError:
        return None
    crop = transforms.RandomResizedCrop(SIDE, scale=SCALE, ratio=RATIO)

    def work(files, seed):
        for data in files:
            crop(Image.open(io.BytesIO(data)).convert("RGB")).tobytes()

    return work


def rate_of_python(work, files, threads, passes):
    """Pillow gives up the interpreter's lock while it decodes and scales."""
    shares = [files[i::threads] for i in range(threads)]
    workers = [threading.Thread(target=lambda s=share, i=i: [work(s, i + p) for p in range(passes)])
               for i, share in enumerate(shares)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return passes * len(files) / (time.perf_counter() - start)


class Dali:
    """DALI's pipeline without a GPU; batches of 64, made ahead as it does by default."""

    def __init__(self, paths, threads):
        from nvidia.dali import fn, pipeline_def, types
        self.count, self.batch = len(paths), 64

        @pipeline_def(batch_size=self.batch, num_threads=threads, device_id=None)
        def pipeline():
            data, _ = fn.readers.file(files=paths, dont_use_mmap=True, random_shuffle=False)
            images = fn.decoders.image_random_crop(data, device="cpu", output_type=types.RGB, random_area=list(SCALE),
                                                   random_aspect_ratio=list(RATIO), num_attempts=10)
            return fn.resize(images, size=[SIDE, SIDE], interp_type=types.INTERP_TRIANGULAR, antialias=True)

        self.pipeline = pipeline()
        self.pipeline.build()
        self.run(1)

    def run(self, passes):
        batches = -(-passes * self.count // self.batch)
        start = time.perf_counter()
        for _ in range(batches):
            self.pipeline.run()
        return batches * self.batch / (time.perf_counter() - start)


def rate_of_ours(build, listing, threads, passes):
    result = subprocess.run([build / "tests/bench/decode_bench", listing, str(threads), str(passes)], check=True,
                            capture_output=True, text=True)
    return float(re.match(r"([\d.]+) images/s", result.stdout)[1])


def reencoded(paths, folder):
    """The same images with the longer side at most 500, at quality 90."""
    out = []
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        image.thumbnail((500, 500), Image.BILINEAR)
        out.append(folder / f"{number}.jpg")
        image.save(out[-1], quality=90)
    return out


def contestants(build, paths, threads, passes):
    listing = tempfile.NamedTemporaryFile("w", suffix=".txt")
    listing.write("".join(f"{path}\n" for path in paths))
    listing.flush()
    files = [path.read_bytes() for path in paths]
    runs = {"teskd": lambda: rate_of_ours(build, listing.name, threads, passes),
            "Pillow": lambda: rate_of_python(with_pillow, files, threads, passes)}
    torchvision = torchvision_work()
    if torchvision:
        runs["torchvision"] = lambda: rate_of_python(torchvision, files, threads, passes)
    else:
        print("torchvision is not installed: left out")
    try:
        dali = Dali([str(path) for path in paths], threads)
        runs["DALI"] = lambda: dali.run(passes)
    except ImportError:
        print("nvidia.dali is not installed (pip install nvidia-dali-cuda130): left out")
    return runs, listing


def measure(build, paths, threads, passes, rounds):
    runs, listing = contestants(build, paths, threads, passes)
    rates = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(run())
    listing.close()
    return {name: statistics.median(values) for name, values in rates.items()}


def processor():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    return re.search(r"model name\s*:\s*(.*)", text)[1]


def report(title, by_threads):
    print(f"\n{title}\n{'':14}" + "".join(f"{n} thread{'s'[:n > 1]:<8}" for n in by_threads) + "  teskd is")
    first = next(iter(by_threads))
    for name in by_threads[first]:
        rates = "".join(f"{rates[name]:<16.0f}" for rates in by_threads.values())
        ratios = ", ".join(f"{rates['teskd'] / rates[name]:.2f}" for rates in by_threads.values())
        print(f"{name:14}{rates}{'' if name == 'teskd' else ratios + ' times as fast'}")
    for threads, rates in by_threads.items():
        if threads != first:
            print(f"teskd on {threads} threads: {rates['teskd'] / by_threads[first]['teskd']:.2f} times one")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--reencode", action="store_true", help="also with the longer side 500 at quality 90")
    options = parser.parse_args()
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    threads = [int(n) for n in options.threads.split(",")]
    print(f"{processor()}, {os.cpu_count()} cores; {len(paths)} files, images/s, median of {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        sets = {"originals": paths}
        if options.reencode:
            sets["longer side 500, quality 90"] = reencoded(paths, pathlib.Path(folder))
        for title, files in sets.items():
            report(title, {n: measure(options.build, files, n, options.passes, options.rounds) for n in threads})


if __name__ == "__main__":
    main()
