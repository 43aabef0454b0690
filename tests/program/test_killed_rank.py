"""A rank that dies ends the others with one message, and a signal ends a training in order; the run can go on."""

import os
import pathlib
import random
import re
import signal
import sys
import time
import unittest

from program import HOST, TESKD, Checkpoint, ProgramTest, finish, is_sealed, start, stop

STEPS = 80
RUN = {"data.kind": "synthetic", "data.train_images": 20 * STEPS, "data.test_images": 40, "train.epochs": 1,
       "output.checkpoint_every": 5}
DIED = re.compile(r"teskd: rank (\d+) on (\S+) ended without a word")


def children(pid):
    """All descendants of a process that run the program: {pid: rank}."""
    parents, found = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    for child in parents:
        ancestor = child
        while ancestor in parents and ancestor != pid:
            ancestor = parents[ancestor]
        if ancestor != pid or child == pid:
            continue
        try:
            if os.path.samefile(f"/proc/{child}/exe", TESKD):
                variables = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                found[child] = int(dict(v.split(b"=", 1) for v in variables if b"=" in v)[b"OMPI_COMM_WORLD_RANK"])
        except (OSError, KeyError):
            pass
    return found


def alive(pids):
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")]


class Interrupted(ProgramTest):
    def start_in_mid_epoch(self, name, ranks, changes=None):
        """A running training, some steps after its first checkpoint."""
        process = start(*self.training_arguments(name, {**RUN, **(changes or {})}), ranks=ranks)
        self.addCleanup(stop, process)
        metrics = self.path(name, "metrics.jsonl")
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if os.path.exists(metrics):
                with open(metrics, encoding="utf-8") as file:
                    if sum(1 for _ in file) >= 12:
                        return process
            time.sleep(0.005)
        self.fail(f"no twelve steps: {finish(process, 1)}")

    def go_on(self, name, ranks, changes=None):
        """Resumes to the end."""
        result = self.train(name, {**RUN, **(changes or {})}, resume="auto", ranks=ranks)
        at = int(re.search(r"resumed from .*: epoch 1, step (\d+)", result.out)[1])
        self.assertTrue(10 <= at < STEPS, at)
        self.assertEqual(self.last(name).attributes["steps_done"], STEPS)

    def expect_the_undisturbed(self, name, ranks):
        self.train("straight", RUN, ranks=ranks)
        found, expected = self.last(name), self.last("straight")
        for tensor, values in expected.tensors.items():
            self.assertEqual(found.tensors[tensor].tobytes(), values.tobytes(), tensor)


class KilledRank(Interrupted):
    def kill(self, name, victim, changes=None):
        process = self.start_in_mid_epoch(name, 2, changes)
        pids = children(process.pid)
        self.assertEqual(sorted(pids.values()), [0, 1])
        os.kill(next(pid for pid, rank in pids.items() if rank == victim), signal.SIGKILL)
        result = finish(process, 60)
        self.assertLess(result.seconds, 10, str(result))
        self.assertNotEqual(result.code, 0)
        self.assertEqual(alive(pids), [])
        message = self.refused(result)
        self.assertEqual(DIED.match(message).groups(), (str(victim), HOST), message)
        at = Checkpoint(self.path(name, "last.h5")).attributes
        self.assertTrue(at["step"] % 5 == 0 and 10 <= at["step"] < STEPS, at["step"])

    def test_rank_1(self):
        self.kill("run", 1)
        self.go_on("run", 2)
        self.expect_the_undisturbed("run", 2)

    def test_rank_0(self):
        self.kill("run", 0, {"run.sync_bn": "yes"})
        self.go_on("run", 2, {"run.sync_bn": "yes"})


class KilledWriter(Interrupted):
    """Killed at random moments of a training that always writes a checkpoint: there is a whole one every time.
    TESKD_KILLS=100 is the long form."""
    kills = int(os.environ.get("TESKD_KILLS", "8"))
    changes = {"data.kind": "synthetic", "data.train_images": 400, "data.test_images": 40, "train.epochs": 100000,
               "eval.every": 0, "train.batch": 4, "output.checkpoint_every": 1, "output.keep": 2, "model.width": 16}

    def written(self):
        last = self.path("run", "last.h5")
        return os.stat(last).st_mtime_ns if os.path.exists(last) else 0

    def wait_for_another(self, process):
        """Until last.h5 is another one; the seconds that it took."""
        before, begin = self.written(), time.monotonic()
        while self.written() == before:
            if process.poll() is not None or time.monotonic() > begin + 60:
                self.fail(f"no other checkpoint: {finish(process, 1)}")
            time.sleep(0.0005)
        return time.monotonic() - begin

    def start_and_kill(self, chance, resume):
        """Kills some checkpoints after the first one, in the time that one takes."""
        process = start(*self.training_arguments("run", self.changes, resume))
        self.addCleanup(stop, process)
        self.wait_for_another(process)
        for _ in range(chance.randint(1, 3)):
            seconds = self.wait_for_another(process)
        time.sleep(chance.uniform(0, seconds))
        stop(process)
        return finish(process, 60)

    def expect_whole(self):
        """Every file with the name of a checkpoint is one; the steps of the newest."""
        done = {}
        for path in pathlib.Path(self.path("run")).glob("*.h5"):
            self.assertTrue(is_sealed(path), path)
            done[path.name] = int(Checkpoint(path).attributes["steps_done"])
        self.assertIn("last.h5", done)
        self.assertLessEqual(done.get("previous.h5", 0), done["last.h5"])
        return done["last.h5"]

    def test_kills(self):
        chance = random.Random(int(os.environ.get("TESKD_SEED", "5")))
        steps, resume, within = 0, None, 0
        for kill in range(self.kills):
            with self.subTest(kill=kill):
                result = self.start_and_kill(chance, resume)
                self.assertNotIn("damaged", result.err)
                within += bool(list(pathlib.Path(self.path("run")).glob("*.tmp.*")))
                found = self.expect_whole()
                self.assertGreater(found, steps)
                steps, resume = found, "auto"
        print(f"{self.kills} kills, {within} of them while a file was written, {steps} steps", file=sys.stderr)
        self.assertGreater(within, 0)
        self.changes = {**self.changes, "train.max_steps": steps + 2}
        self.train("run", self.changes, resume="auto")
        self.train("straight", {**self.changes, "output.checkpoint_every": 0})
        found, expected = self.last("run"), self.last("straight")
        for tensor, values in expected.tensors.items():
            if tensor != "progress/epoch_sums":  # of sums in another order
                self.assertEqual(found.tensors[tensor].tobytes(), values.tobytes(), tensor)


class Signals(Interrupted):
    def check(self, ranks, number):
        process = self.start_in_mid_epoch("run", ranks)
        os.kill(process.pid, number)
        result = finish(process, 60)
        self.assertEqual(result.code, 75, str(result))
        message = self.refused(result, f"stopped by {signal.Signals(number).name}", "--resume auto")
        step = int(re.search(r"after step (\d+)", message)[1])
        at = Checkpoint(self.path("run", "last.h5")).attributes
        self.assertEqual((at["epoch"], at["step"]), (0, step))

    def test_sigterm(self):
        self.check(1, signal.SIGTERM)
        self.go_on("run", 1)
        self.expect_the_undisturbed("run", 1)

    def test_sigint(self):
        self.check(1, signal.SIGINT)

    def test_sigusr2_through_mpirun(self):
        self.check(2, signal.SIGUSR2)
        self.go_on("run", 2)


if __name__ == "__main__":
    unittest.main()
