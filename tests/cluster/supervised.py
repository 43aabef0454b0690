"""A training under launch/supervise on the hosts of a cluster, in small: steps of milliseconds."""

import os
import signal
import subprocess
import threading
import time

from cluster import SCRATCH, children, ranks
from program import SMALL, SOURCE, TESKD, Checkpoint, events, settings

TRAINING = {**SMALL, "data.kind": "synthetic", "data.test_images": 24, "train.batch": 24, "train.epochs": 1, "train.lr": 0.01,
            "output.checkpoint_every": 50}


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s in vain")


class Supervised:
    """Started on the first host; its lines are collected with the time of each."""

    def __init__(self, cluster, name, changes, options=()):
        self.folder = SCRATCH / name
        values = {**TRAINING, "output.dir": self.folder, **changes}
        self.process = subprocess.Popen(
            cluster.command(cluster.names[0], SOURCE / "launch/supervise", "--hosts", ",".join(cluster.names), *options,
                            TESKD, *settings(values)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self.collect, daemon=True)
        self.reader.start()

    def collect(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    def text(self):
        return "\n".join(line for _, line in self.lines)

    def steps(self):
        """Done so far, also those that a failure has undone."""
        try:
            return max([event["steps_done"] for event in events(self.folder, "step")], default=0)
        except (OSError, ValueError):
            return 0

    def wait_for_line(self, words, after, seconds):
        """When a line with these words came, not before `after`."""
        return wait_for(lambda: next((at for at, line in list(self.lines) if at >= after and words in line), None), seconds)

    @staticmethod
    def wait_for_end(pids, seconds):
        """When the last of these processes has ended."""
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids), seconds)
        return time.monotonic()

    def wait_for_steps(self, count, seconds=60):
        wait_for(lambda: self.steps() >= count or self.process.poll() is not None, seconds)
        assert self.process.poll() is None, self.text()

    def ranks(self, count):
        """{rank: process id}, once there are so many."""
        return wait_for(lambda: (lambda found: found if len(found) == count else None)(ranks()), 30)

    def signal(self, number):
        os.kill(children(self.process.pid)[0], number)

    def finish(self, seconds):
        """Its exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise AssertionError(f"no end after {seconds} s:\n{self.text()[-6000:]}") from None
        self.reader.join(5)
        return code

    def last(self):
        return Checkpoint(self.folder / "last.h5")
