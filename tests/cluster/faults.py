"""faults.py [--faults N] [--seed S] [--silence S]: one training under launch/supervise on four hosts, and N faults in it,
at random moments and in checkpoints: a rank killed or stopped, a host's link cut.

After each fault every rank that was there, the cut-off ones too, and mpirun have to end by themselves, with a message
that names the rank. Only then is a link joined, so that the training goes on with all four: its last weights must be those
of an undisturbed run, to the bit. Prints a row per fault; exit code 1 when one of these fails."""

import argparse
import os
import random
import re
import signal
import sys
import time

from cluster import Cluster, inside, ranks
from supervised import SILENCE, Supervised, wait_for

HOSTS = ["a", "b", "c", "d"]
STEPS_BETWEEN = 100
CHECKPOINT = 50  # steps


class Fault:
    """One of them, and what came of it."""

    def __init__(self, chance):
        self.kind = chance.choice(["kill", "stop", "cut"])
        self.rank = chance.randrange(4) if self.kind != "cut" else chance.randrange(1, 4)  # mpirun is on the first
        self.in_checkpoint = chance.random() < 0.3
        self.steps, self.delay = chance.randrange(CHECKPOINT), chance.random() * 0.1

    def wait_for_moment(self, training, after):
        at = after + STEPS_BETWEEN
        at = at - at % CHECKPOINT if self.in_checkpoint else at + self.steps
        training.wait_for_steps(at, 300)
        time.sleep(0 if self.in_checkpoint else self.delay)

    def happen(self, cluster, pids):
        if self.kind == "cut":
            cluster.cut(HOSTS[self.rank])
        else:
            os.kill(pids[self.rank], signal.SIGKILL if self.kind == "kill" else signal.SIGSTOP)

    def follow(self, training, pids, limit):
        """From the fault to the end of the ranks and of mpirun, in seconds."""
        begin = time.monotonic()
        self.noticed = training.wait_for_line(f": rank {self.rank} on {HOSTS[self.rank]} ", begin, limit) - begin
        self.ranks_gone = self.mpirun_gone = None
        while self.ranks_gone is None or self.mpirun_gone is None:
            if self.ranks_gone is None and not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids.values()):
                self.ranks_gone = time.monotonic() - begin
            if self.mpirun_gone is None and any(at > begin and "mpirun ended" in line for at, line in list(training.lines)):
                self.mpirun_gone = time.monotonic() - begin
            if time.monotonic() - begin > limit:
                raise AssertionError(f"still there after {limit:g} s: ranks {self.ranks_gone}, mpirun {self.mpirun_gone}\n"
                                     f"{training.text()[-4000:]}")
            time.sleep(0.02)
