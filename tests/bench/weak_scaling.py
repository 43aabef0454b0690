#!/usr/bin/env python3
"""Weak scaling on the cores of one machine: a rank alone, as many single ranks side by side as there are cores given, and
the same number of ranks of one training. Each has one core and the same images per step. All ways take turns.

The second way tells what the cores take from each other (caches, memory, clock), the third what communication adds. What
a step's exposed communication is, `teskd bench` measures: the time in which the launches stand still for sums."""

import argparse
import json
import os
import statistics
import subprocess
import sys


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teskd", default="build/teskd")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--network", default="cifarresnet18")
    parser.add_argument("--batch", type=int, default=16, help="images of each rank in a step")
    parser.add_argument("--cores", default="0,1", help="one per rank")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed ones in each round")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    return parser.parse_args()


def bench(a, ranks):
    values = {"model.network": a.network, "train.batch": a.batch * ranks, "run.threads": 1, "run.device": "cpu"}
    settings = [f"{key}={value}" for key, value in values.items()] + a.set
    return [a.teskd, "bench", "--json", "--steps", str(a.steps)] + [part for s in settings for part in ("--set", s)]


def on_core(core, command):
    return ["taskset", "-c", core] + command


def launched(a, cores):
    """One mpirun with a part of its command line for each rank, so that each has its core."""
    command = [a.mpirun, "--bind-to", "none"]
    for i, core in enumerate(cores):
        command += ([":"] if i else []) + ["-np", "1"] + on_core(core, bench(a, len(cores)))
    return command


def results(commands):
    """Those of processes that run at the same time."""
    environment = {"GOMP_SPINCOUNT": "2000", **os.environ}
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True, env=environment) for c in commands]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit(f"failed: {' '.join(commands[0])}")
    return [json.loads(output) for output in outputs]


def main():
    a = arguments()
    cores = a.cores.split(",")
    ways = {
        "1 rank": [on_core(cores[0], bench(a, 1))],
        f"{len(cores)} single ranks": [on_core(core, bench(a, 1)) for core in cores],
        f"{len(cores)} ranks": [launched(a, cores)],
    }
    steps, exposed = {way: [] for way in ways}, []
    for n in range(a.rounds):
        for way, commands in ways.items():
            found = results(commands)
            steps[way].append(statistics.mean(r["step_ms"] for r in found))
            shown = ""
            if commands is ways[f"{len(cores)} ranks"]:
                exposed.append(found[0]["exposed_ms"] / found[0]["step_ms"])
                shown = f", exposed communication {100 * exposed[-1]:.2f} %"
            print(f"round {n + 1}: {way}: step {steps[way][-1]:.1f} ms{shown}", flush=True)
    print(f"\n{a.network}, {a.batch} images per rank, {a.rounds} rounds of {a.steps} steps: median (least-most)")
    for way, ms in steps.items():
        print(f"  {way:16} step {statistics.median(ms):.1f} ms ({min(ms):.1f}-{max(ms):.1f})")
    alone, side, together = (statistics.median(steps[way]) for way in ways)
    print(f"  exposed communication {100 * statistics.median(exposed):.2f} % of a step "
          f"({100 * min(exposed):.2f}-{100 * max(exposed):.2f})")
    print(f"  weak scaling efficiency {100 * alone / together:.1f} %; "
          f"against ranks side by side without communication {100 * side / together:.1f} %")


if __name__ == "__main__":
    main()
