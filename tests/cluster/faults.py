"""faults.py [--faults N] [--seed S] [--silence S]: one training under launch/supervise on four hosts, and N faults in it,
at random moments or while a checkpoint is written: a rank killed or stopped, a host's link cut.

After each fault all ranks, the cut-off ones too, and mpirun have to end, with a message that names the rank. Only then is
a link joined, so that the training goes on with all four ranks: its last weights must be those of an undisturbed one, to
the bit. Prints a row per fault; exit code 1 when something is not as it should be."""

import argparse
import os
import random
import re
import signal
import sys
import time

from cluster import Cluster, inside, ranks
from supervised import TRAINING, Supervised

HOSTS = ["a", "b", "c", "d"]
COLUMNS = ("fault", "rank", "at step", "named", "noticed", "ranks end", "mpirun end", "restarted", "undone", "cost")


class Fault:
    """One of them, and the seconds after which what came of it."""

    def __init__(self, chance):
        self.kind = chance.choice(["kill", "stop", "cut"])
        self.rank = chance.randrange(4)
        self.in_checkpoint, self.steps, self.delay = chance.random() < 0.3, chance.randrange(10, 60), chance.random() * 0.1

    def wait_for_moment(self, training):
        step = training.steps() + self.steps
        if self.in_checkpoint:
            step += -step % TRAINING["output.checkpoint_every"]
        training.wait_for_steps(step, 300)
        time.sleep(0 if self.in_checkpoint else self.delay)

    def happen(self, cluster, pids):
        if self.kind == "cut":
            cluster.cut(HOSTS[self.rank])
        else:
            os.kill(pids[self.rank], signal.SIGKILL if self.kind == "kill" else signal.SIGSTOP)

    def run(self, cluster, training, limit):
        self.wait_for_moment(training)
        pids, self.step, begin = training.ranks(4), training.steps(), time.monotonic()
        self.happen(cluster, pids)

        def seconds_until(words):
            return training.wait_for_line(words, begin, limit) - begin

        self.noticed = seconds_until("teskd: rank ")
        self.ranks_end = training.wait_for_end(pids.values(), limit) - begin
        self.mpirun_ends = seconds_until("s later")
        cluster.join(HOSTS[self.rank])
        self.restarted, self.cost = seconds_until("restarted "), seconds_until("the failure cost ")
        lines = [line for at, line in training.lines if at >= begin]
        self.message = next(line for line in lines if line.startswith("teskd: rank "))
        self.again = next(re.search(r"(\d+) steps to be done again", line)[1] for line in lines if "to be done again" in line)

    def is_named(self):
        """To the first host, where mpirun is, all others are cut off when it is itself."""
        lost = range(1, 4) if self.kind == "cut" and self.rank == 0 else [self.rank]
        return any(self.message.startswith(f"teskd: rank {rank} on {HOSTS[rank]} ") for rank in lost)

    def row(self):
        phase = re.search(r"\((\w+)\)$", self.message)
        named = (phase[1] if phase else "yes") if self.is_named() else "WRONG"
        times = (self.noticed, self.ranks_end, self.mpirun_ends, self.restarted)
        return (f"{self.kind:>10} {self.rank:10} {self.step:10} {named:>10} "
                + " ".join(f"{seconds:8.1f} s" for seconds in times) + f" {self.again:>10} {self.cost:8.1f} s")


def differing(found, expected):
    return [name for name, values in expected.tensors.items() if found.tensors[name].tobytes() != values.tobytes()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--silence", type=float, default=15, help="dist.timeout_silence")
    options = parser.parse_args()
    print(f"{options.faults} faults, --seed {options.seed} --silence {options.silence:g}", flush=True)

    chance, cluster = random.Random(options.seed), Cluster(HOSTS)
    changes = {"data.train_images": 24 * 80, "train.epochs": options.faults + 1, "dist.timeout_silence": options.silence}
    training = Supervised(cluster, "run", changes, ["--min-hosts", "4"])
    print(" ".join(f"{column:>10}" for column in COLUMNS), flush=True)
    wrong = 0
    for _ in range(options.faults):
        fault = Fault(chance)
        try:
            fault.run(cluster, training, options.silence + 60)
        except AssertionError as error:
            sys.exit(f"{vars(fault)}\n{error}\n{training.text()[-4000:]}")
        print(fault.row(), flush=True)
        wrong += not fault.is_named()

    straight = Supervised(cluster, "straight", changes)
    codes = training.finish(600), straight.finish(600)
    different = differing(training.last(), straight.last())
    print(f"exit codes {codes}, {len(ranks())} processes left, {wrong} ranks wrongly named, {len(different)} tensors differ "
          "from those of an undisturbed training")
    sys.exit(1 if any(codes) or ranks() or wrong or different else 0)


if __name__ == "__main__":
    inside()
    main()
