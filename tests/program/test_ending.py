"""How trainings end: by divergence, by train.max_steps, by a signal or a kill in an evaluation. What was trained is kept,
what is not finite is not, and every end is evaluated."""

import os
import pathlib
import signal
import sys
import time
import unittest

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "export"))

from exchange import join_safetensors, split_safetensors  # noqa: E402
from program import Checkpoint, ProgramTest, enough_under_sanitizers, events, finish, settings, start, stop  # noqa: E402
from test_training import HEADS, table_row, tables  # noqa: E402

DIVERGES = {"train.lr": 1000, "train.epochs": 20, "model.method": "plain", "train.weight_decay": 1}


class Divergence(ProgramTest):
    def check(self, name, changes, ranks=1):
        result = self.train(name, {**DIVERGES, **changes}, code=1, ranks=ranks)
        message = self.refused(result, "no longer finite", "train.lr")
        for file in os.listdir(self.path(name)):
            if file.endswith(".h5"):
                for tensor, values in Checkpoint(self.path(name, file)).tensors.items():
                    self.assertTrue(numpy.isfinite(values).all(), f"{file}: {tensor}")
        return message

    def test_nothing_that_is_not_finite_is_saved(self):
        # The lines of the log come too late for the checkpoints.
        for every, ranks in ((2, 1), (3, 2)):
            name = f"every{every}"
            message = self.check(name, {"log.every": 1000, "output.checkpoint_every": every}, ranks)
            at = self.last(name).attributes
            self.assertIn(f"{self.path(name, 'last.h5')}, of epoch {at['epoch'] + 1}, step {at['step']}", message)
        # The weights are lost in the last step of an epoch, whose own loss is finite: the epoch is no checkpoint.
        steps = self.last("every2").attributes["steps_done"] + 1
        for images in range(20 * steps, 20 * steps + 60, 20):
            name = f"images{images}"
            message = self.check(name, {"log.every": 1000, "data.train_images": images})
            if "weights" in message:
                break
        self.assertIn("weights", message)
        self.assertIn("there is no checkpoint", message)
        self.assertFalse(os.path.exists(self.path(name, "best.h5")))

    def test_not_finite_logits_are_wrong(self):
        # Weights that are finite, and too large for the logits to be.
        self.train("run", {"train.max_steps": 1})
        path, infinite = self.path("teacher.safetensors"), self.path("huge.h5")
        self.run_code(0, "export", "--checkpoint", self.path("run", "last.h5"), "--format", "safetensors", "--out", path)
        header, data = split_safetensors(path)
        for name in ("layer4.0.bn2.weight", "fc.weight"):
            begin, end = header[name]["data_offsets"]
            data = data[:begin] + numpy.full((end - begin) // 4, 1e30, numpy.float32).tobytes() + data[end:]
        join_safetensors(path, header, data)
        values = {"model.network": "cifarresnet8", "model.width": 4, "data.kind": "cifar10"}
        self.run_code(0, "import", "--from", path, "--teacher-only", "--out", infinite, *settings(values))
        for flip in ("no", "yes"):
            csv = self.path(f"{flip}.csv")
            result = self.run_code(0, "eval", "--checkpoint", infinite, "--predictions", csv, *settings(
                {"data.kind": "cifar10", "data.path": self.data, "eval.flip": flip, "run.threads": 1}))
            self.assertEqual(tables(result.out)[0]["teacher"][:2], ["0.00", "0.0"])
            rows = numpy.loadtxt(csv, delimiter=",", skiprows=1)
            self.assertEqual(set(rows[:, 2]), {-1})
            self.assertEqual(set(rows[:, 3]), {0})
            self.assertTrue(numpy.isnan(rows[:, 4]).all())


class MaxSteps(ProgramTest):
    def test_an_end_within_an_epoch_is_evaluated(self):
        result = self.train("run", {"train.max_steps": 13, "eval.every": 0, "train.epochs": 3})
        self.assertIn("\nepoch 2/3 to step 3 of 10 in ", result.out)
        first, end = events(self.path("run"), "epoch")
        self.assertNotIn("test_top1", first)
        self.assertEqual((end["epoch"], end["step"], end["steps_done"]), (2, 3, 13))
        self.assertEqual(tables(result.out)[-1], {name: table_row(end, "test", i) for i, name in enumerate(HEADS)})
        at = self.last("run").attributes
        self.assertEqual((at["epoch"], at["step"], at["steps_done"], at["evaluated_at"]), (1, 3, 13, 13))
        self.assertEqual(Checkpoint(self.path("run", "best.h5")).attributes["best_top1"], end["test_top1"][0])
        # Once: not again by a resume that has nothing to do.
        again = self.train("run", {"train.max_steps": 13, "eval.every": 0, "train.epochs": 3}, resume="auto")
        self.assertEqual(tables(again.out), [])
        # The epoch is finished when the limit is raised; at its end there is one record of the whole of it.
        self.train("run", {"train.max_steps": 20, "eval.every": 0, "train.epochs": 3}, resume="auto")
        records = events(self.path("run"), "epoch")
        self.assertEqual([(r["epoch"], r["step"], "test_top1" in r) for r in records],
                         [(1, 10, False), (2, 3, True), (2, 10, True)])
        # A limit that has been passed already is an end, too.
        result = self.train("run", {"train.epochs": 2, "eval.every": 0}, resume=self.path("run", "previous.h5"))
        self.assertEqual(events(self.path("run"), "epoch")[-1]["test_top1"], records[-1]["test_top1"])


class Interrupted(ProgramTest):
    """In the evaluation of the first of two epochs."""
    changes = {"data.kind": "synthetic", "data.train_images": 40, "data.test_images": 3000, "eval.batch": 1,
               "train.max_steps": 2}

    def interrupt(self, name, number, ranks):
        process = start(*self.training_arguments(name, self.changes), ranks=ranks)
        try:
            while not os.path.exists(self.path(name, "last.h5")) and process.poll() is None:
                time.sleep(0.005)
            if number == signal.SIGKILL:
                stop(process)
            else:
                process.send_signal(number)
            return finish(process)
        finally:
            stop(process)

    def test_save_then_evaluate(self):
        self.train("straight", self.changes)
        for name, number, ranks in (("stopped", signal.SIGTERM, 1), ("killed", signal.SIGKILL, 1)):
            result = self.interrupt(name, number, ranks)
            self.assertEqual(result.code, 75 if number == signal.SIGTERM else -signal.SIGKILL, str(result))
            at = self.last(name).attributes
            self.assertEqual((at["epoch"], at["step"], at["steps_done"], at["evaluated_at"]), (0, 2, 2, -1))
            self.assertEqual(events(self.path(name), "epoch"), [])
            self.train(name, self.changes, resume="auto")
            self.assertEqual([{**event, "seconds": 0} for event in events(self.path(name), "epoch")],
                             [{**event, "seconds": 0} for event in events(self.path("straight"), "epoch")])
            self.assertEqual([event["seconds"] for event in events(self.path(name), "epoch")], [0])  # none of training
            for file in ("last.h5", "best.h5"):
                found, expected = (Checkpoint(self.path(run, file)) for run in (name, "straight"))
                for tensor, values in expected.tensors.items():
                    self.assertEqual(found.tensors[tensor].tobytes(), values.tobytes(), tensor)
                for key in set(expected.attributes) - {"settings"}:
                    self.assertEqual(found.attributes[key], expected.attributes[key], key)


load_tests = enough_under_sanitizers("Divergence")


if __name__ == "__main__":
    unittest.main()
