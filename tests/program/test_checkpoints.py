"""Checkpoints that are written while training goes on: which stay, what a damaged one does, and a disk that is full."""

import glob
import os
import re
import resource
import shutil
import time
import unittest

from program import Checkpoint, ProgramTest, enough_under_sanitizers, events, finish, start, stop
from test_killed_rank import children

EVERY_2 = {"train.epochs": 1, "output.checkpoint_every": 2}  # of 10 steps


def content(path):
    with open(path, "rb") as file:
        return file.read()


def spoil(path):
    """One bit, in the middle."""
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


class Kept(ProgramTest):
    def kept(self, name):
        """{steps done: path}, by the names; the content agrees."""
        found = {int(re.search(r"step_(\d+)", path)[1]): path for path in glob.glob(self.path(name, "step_*.h5"))}
        for steps, path in found.items():
            self.assertEqual(Checkpoint(path).attributes["steps_done"], steps)
        return found

    def test_by_number(self):
        self.train("run", {**EVERY_2, "output.keep": 3})
        kept = self.kept("run")
        self.assertEqual(sorted(kept), [6, 8, 10])
        self.assertTrue(os.path.samefile(kept[10], self.path("run", "last.h5")), "it takes no space of its own")
        self.assertEqual(Checkpoint(self.path("run", "previous.h5")).attributes["steps_done"], 8)
        result = self.train("run", {"train.epochs": 2, "train.max_steps": 8}, resume=kept[6])
        self.assertIn("epoch 1, step 6", result.out)
        # Those of a run that went on from an earlier place are the newest, whatever their number.
        self.train("run", {**EVERY_2, "train.epochs": 2, "output.keep": 2, "train.max_steps": 8}, resume=kept[6])
        self.assertEqual(sorted(self.kept("run")), [8, 10])
        self.run_code(0, *self.training_arguments("run", {"train.max_steps": 2}), "--overwrite")
        self.assertEqual(self.kept("run"), {})

    def test_by_age(self):
        changes = {**EVERY_2, "output.keep": 1, "output.keep_hours": 2}
        self.train("run", {**changes, "train.max_steps": 6})
        kept = self.kept("run")
        self.assertEqual(sorted(kept), [2, 4, 6])
        for steps, hours in ((2, 1.9), (4, 2.1)):
            os.utime(kept[steps], (time.time() - 3600 * hours,) * 2)
        self.train("run", changes, resume="auto")
        self.assertEqual(sorted(self.kept("run")), [2, 6, 8, 10])

    def test_a_folder_of_nothing_else(self):
        self.train("run", {**EVERY_2, "output.keep": 2})
        for name in ("last.h5", "previous.h5", "best.h5", "metrics.jsonl"):
            os.unlink(self.path("run", name))
        result = self.train("run", EVERY_2, code=2)
        self.refused(result, "holds a run already", "step_000000010.h5")
        with open(self.path("run", "step_000000008.h5.tmp.00ff"), "w", encoding="utf-8") as file:
            file.write("half")
        result = self.train("run", {**EVERY_2, "train.epochs": 2}, resume="auto")
        self.assertIn("has no last.h5: going on from step_000000010.h5", result.out)
        self.assertIn("1 temporary file of killed runs removed", result.out)


class Damaged(ProgramTest):
    """--resume auto goes on from the newest checkpoint that is whole."""

    def setUp(self):
        super().setUp()
        self.train("run", {**EVERY_2, "output.keep": 3, "train.max_steps": 8, "eval.every": 0})
        self.names = ["last.h5", "previous.h5", "step_000000004.h5"]  # of the steps 8, 6 and 4

    def resume(self, code=0, ranks=1):
        return self.train("run", {**EVERY_2, "output.keep": 3}, resume="auto", ranks=ranks, code=code)

    def expect_passed_over(self, result, spoilt, next_name):
        path = self.path("run", spoilt)
        self.assertRegex(result.err, rf"teskd: warning: .*{path}: the file is damaged: .*; going on from "
                                     rf"{self.path('run', next_name)}\n")
        self.assertIn(f"the damaged {path} stays as {path}.damaged\n", result.out)

    def check(self, count, ranks=1):
        damaged = self.names[:count]
        for name in damaged:
            spoil(self.path("run", name))
        spoilt = {name: content(self.path("run", name)) for name in damaged}
        result = self.resume(ranks=ranks)
        for name, next_name in zip(damaged, self.names[1:]):
            self.expect_passed_over(result, name, next_name)
            self.assertTrue(content(self.path("run", f"{name}.damaged")) == spoilt[name])
        self.assertIn(f"epoch 1, step {8 - 2 * count}", result.out)
        if ranks == 1:
            self.train("straight", EVERY_2)
            a, b = self.last("run"), self.last("straight")
            for name, values in b.tensors.items():
                self.assertEqual(a.tensors[name].tobytes(), values.tobytes(), name)

    def test_the_newest(self):
        self.check(1)

    def test_two(self):
        self.check(2)

    def test_ranks(self):
        self.check(1, ranks=2)

    def test_once_more(self):
        """What was damaged earlier stays as well."""
        for number in (1, 2):
            spoil(self.path("run", "last.h5"))
            self.resume()
        self.assertTrue(os.path.exists(self.path("run", "last.h5.damaged")))
        self.assertTrue(os.path.exists(self.path("run", "last.h5.damaged.2")))

    def test_none_is_whole(self):
        for name in os.listdir(self.path("run")):
            if name in self.names:
                os.truncate(self.path("run", name), 1000)
        before = {name: content(self.path("run", name)) for name in os.listdir(self.path("run"))}
        result = self.resume(code=1)
        self.assertIn("step_000000004.h5: the file is damaged: it has 1000 bytes", result.messages()[-1])
        self.assertEqual({name: content(self.path("run", name)) for name in os.listdir(self.path("run"))}, before)

    def test_what_is_no_damage(self):
        shutil.copy(self.path("run", "last.h5"), self.path("whole.h5"))
        result = self.train("run", {**EVERY_2, "model.width": 6}, resume="auto", code=2)
        self.refused(result, "model.width")
        self.assertTrue(content(self.path("run", "last.h5")) == content(self.path("whole.h5")))


class FullDisk(ProgramTest):
    """Of rank 0, from some moment on: the thread that writes finds it, and the run ends before its next checkpoint."""
    changes = {"data.kind": "synthetic", "data.train_images": 6000, "data.test_images": 20, "train.epochs": 100000,
               "eval.every": 0, "output.checkpoint_every": 60}

    def check(self, ranks):
        process = start(*self.training_arguments("run", self.changes), ranks=ranks)
        self.addCleanup(stop, process)
        last = self.path("run", "last.h5")
        deadline = time.monotonic() + 60
        while not os.path.exists(last) and time.monotonic() < deadline:
            time.sleep(0.005)
        pid = process.pid if ranks == 1 else {rank: pid for pid, rank in children(process.pid).items()}[0]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (os.path.getsize(last) // 2, resource.RLIM_INFINITY))
        result = finish(process, 60)
        self.assertEqual(result.code, 1, str(result))
        self.refused(result, "last.h5: cannot write: File too large")
        at = int(Checkpoint(last).attributes["steps_done"])
        steps = events(self.path("run"), "step")[-1]["steps_done"]
        self.assertEqual(at % 60, 0)
        self.assertLess(steps, at + 120, "the next checkpoint would have told")
        self.assertEqual(glob.glob(self.path("run", "*.tmp.*")), [])
        self.train("run", {**self.changes, "train.max_steps": at + 1}, resume="auto", ranks=ranks)

    def test_1_rank(self):
        self.check(1)

    def test_2_ranks(self):
        self.check(2)


load_tests = enough_under_sanitizers("Kept.test_by_number", "Damaged.test_two", "FullDisk.test_1_rank")


if __name__ == "__main__":
    unittest.main()
