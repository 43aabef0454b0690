"""What a checkpoint costs the steps around it: python3 checkpoint_stall.py TESKD [ANOTHER_TESKD ...]

Each program trains on synthetic images and saves every --every steps; they take turns. From metrics.jsonl, which has the
time of each step: of the step after a save, how much longer it takes than the median step (the stall), and of all steps
from one save to the next together (the cost: also what a writer takes from the cores that compute)."""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile


def step_seconds(program, arguments):
    with tempfile.TemporaryDirectory() as folder:
        settings = {"model.network": arguments.network, "data.kind": "synthetic", "train.batch": arguments.batch,
                    "data.train_images": arguments.batch * arguments.steps, "data.test_images": arguments.batch,
                    "train.epochs": 1, "eval.every": 0, "log.every": 1, "output.dir": folder,
                    "output.checkpoint_every": arguments.every, "run.threads": arguments.threads,
                    "train.max_steps": arguments.steps - 1, **dict(s.split("=", 1) for s in arguments.set)}
        command = [program, "train", *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(pathlib.Path(folder) / "metrics.jsonl", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        mib = (pathlib.Path(folder) / "last.h5").stat().st_size / 2**20
        return [arguments.batch / line["images_per_second"] for line in lines if line["event"] == "step"], mib


def report(name, rounds, every):
    stalls, costs, usual = [], [], []
    for seconds in rounds:
        median = statistics.median(seconds[1:])
        saves = range(every, len(seconds) - every + 1, every)
        usual.append(median)
        stalls += [seconds[save] - median for save in saves]
        costs += [sum(seconds[save:save + every]) - every * median for save in saves]
    def text(values):
        return f"{1000 * statistics.median(values):7.0f} ({1000 * min(values):.0f} to {1000 * max(values):.0f})"
    print(f"{name}: step {text(usual)} ms, stall {text(stalls)} ms, cost {text(costs)} ms; {len(stalls)} checkpoints")
    return statistics.median(stalls)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--network", default="cifarresnet18")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=26)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    found = {program: [] for program in arguments.programs}
    for _ in range(arguments.rounds):
        for program in arguments.programs:
            seconds, mib = step_seconds(program, arguments)
            found[program].append(seconds)
    print(f"{arguments.network}, batch {arguments.batch}: a checkpoint of {mib:.0f} MiB; median (least to most)")
    stalls = [report(program, rounds, arguments.every) for program, rounds in found.items()]
    for program, stall in list(zip(arguments.programs, stalls))[1:]:
        print(f"stall of {program} / {arguments.programs[0]}: {stall / stalls[0]:.2f}")


if __name__ == "__main__":
    main()
