"""A stopped and resumed training is the same training, bit for bit; a checkpoint that does not fit is refused."""

import os
import shutil
import unittest

import h5py

from program import SMALL, SOURCE, Checkpoint, ProgramTest, enough_under_sanitizers, events, relative_l2, reseal, run, settings

# Two epochs of 9 steps, the last one incomplete; the learning rate depends on the step.
STRAIGHT = {"train.batch": 24, "train.schedule": "cosine", "train.warmup_epochs": 0.5}
STEPS = 9
EARLIER = SOURCE / "tests/data/checkpoint_0.1.0.h5"


class Bitwise(ProgramTest):
    def assert_same(self, found, expected):
        a, b = self.last(found), self.last(expected)
        self.assertEqual(sorted(a.tensors), sorted(b.tensors))
        for name, values in b.tensors.items():
            self.assertEqual((a.tensors[name].dtype, a.tensors[name].shape), (values.dtype, values.shape), name)
            self.assertEqual(a.tensors[name].tobytes(), values.tobytes(), name)
        self.assertEqual(sorted(a.attributes), sorted(b.attributes))
        # train.max_steps ends a run with an evaluation, also within an epoch: it may be the best one.
        for name in set(b.attributes) - {"settings", "best_top1"}:
            self.assertEqual(a.attributes[name], b.attributes[name], name)
        found_events = events(self.path(found), "epoch")
        self.assertEqual(a.attributes["best_top1"], max(event["test_top1"][0] for event in found_events))
        without_seconds = [[{**event, "seconds": 0} for event in events(self.path(name), "epoch")
                            if event["step"] == STEPS] for name in (found, expected)]
        self.assertEqual(*without_seconds)

    def check(self, changes, ranks, stops):
        changes = {**STRAIGHT, **changes}
        self.train("straight", changes, ranks=ranks)
        self.assertEqual(len(events(self.path("straight"), "epoch")), 2)
        for stop in stops:
            with self.subTest(stop=stop):
                name = f"stopped{stop}"
                self.train(name, {**changes, "train.max_steps": stop}, ranks=ranks)
                at = self.last(name).attributes
                self.assertEqual((at["epoch"], at["step"], at["steps_done"]), (stop // STEPS, stop % STEPS, stop))
                result = self.train(name, changes, resume="auto", ranks=ranks)
                self.assertIn(f"epoch {stop // STEPS + 1}, step {stop % STEPS}", result.out)
                self.assert_same(name, "straight")

    def test_1_rank(self):
        self.check({}, 1, (4, STEPS, STEPS + 5))

    def test_2_ranks(self):
        self.check({}, 2, (4, STEPS + 5))

    def test_2_ranks_synchronised_bn(self):
        self.check({"run.sync_bn": "yes"}, 2, (STEPS + 5,))

    def test_float64(self):
        self.check({"run.device": "reference"}, 1, (STEPS + 5,))

    def test_plain(self):
        self.check({"model.method": "plain"}, 1, (STEPS + 5,))

    def test_recipe_options(self):
        self.check({"train.ema_decay": 0.9, "train.accumulate": 3, "train.clip_norm": 0.5, "eval.ema": "yes",
                    "train.label_smoothing": 0.1}, 2, (STEPS + 5,))

    def test_stopped_twice_between_lines_of_the_log(self):
        # The order of the sums over the images differs then: equal to rounding instead of to the last bit.
        changes = {**STRAIGHT, "log.every": 4}
        self.train("straight", changes)
        for stop in (3, STEPS + 2):
            self.train("stopped", {**changes, "train.max_steps": stop}, resume="auto")
        self.train("stopped", changes, resume="auto")
        a, b = self.last("stopped"), self.last("straight")
        for name in b.tensors:
            self.assertEqual(a.tensors[name].tobytes(), b.tensors[name].tobytes(), name)
        whole = [event for event in events(self.path("stopped"), "epoch") if event["step"] == STEPS]
        for found, expected in zip(whole, events(self.path("straight"), "epoch"), strict=True):
            self.assertAlmostEqual(found["loss"], expected["loss"], delta=1e-12)
            self.assertEqual(found["train_top1"], expected["train_top1"])

    def move(self, changes, stages):
        """One training in stages (last step, ranks, device) against that of one rank: relative errors of the last
        epoch's loss and of the weights."""
        changes = {**STRAIGHT, "run.sync_bn": "yes", **changes}
        self.train("straight", changes)
        for stop, ranks, device in stages:
            self.train("moved", {**changes, "train.max_steps": stop, "run.device": device}, resume="auto", ranks=ranks)
        self.assertEqual(self.last("moved").attributes["steps_done"], 2 * STEPS)
        found, expected = (events(self.path(name), "epoch")[-1]["loss"] for name in ("moved", "straight"))
        return (abs(found - expected) / expected,
                relative_l2(self.last("moved").weights(), self.last("straight").weights()))

    def test_fewer_and_fewer_ranks(self):
        loss, weights = self.move({"run.device": "reference"},
                                  ((5, 4, "reference"), (10, 2, "reference"), (18, 1, "reference")))
        self.assertLess(loss, 1e-9)
        self.assertLess(weights, 1e-8)

    def test_fewer_and_fewer_ranks_and_another_backend(self):
        """These 18 steps make a million times as much of a rounding (the 2e-10 that float64 leaves): less at this rate."""
        loss, weights = self.move({"train.lr": 0.002, "run.device": "cpu"},
                                  ((5, 4, "cpu"), (10, 2, "cpu"), (13, 1, "reference"), (18, 1, "cpu")))
        self.assertLess(loss, 3e-4)
        self.assertLess(weights, 5e-3)

    def test_path(self):
        self.train("straight", STRAIGHT)
        self.train("first", {**STRAIGHT, "train.max_steps": 4})
        result = self.train("second", STRAIGHT, resume=self.path("first", "last.h5"))
        self.assertIn(f"resumed from {self.path('first', 'last.h5')}: epoch 1, step 4", result.out)
        a, b = self.last("second"), self.last("straight")
        for name in b.tensors:
            self.assertEqual(a.tensors[name].tobytes(), b.tensors[name].tobytes(), name)

    def test_another_test_set(self):
        """What was reached on one test set, or measured in one way, is no best of another one."""
        other = self.path("other")
        self.run_code(0, "data", "synth", "--out", other, "--train-images", 200, "--test-images", 40)
        shutil.copytree(self.data, self.path("mixed"))
        shutil.copy(os.path.join(other, "test_batch.bin"), self.path("mixed"))
        self.train("run", {"train.epochs": 1})
        arguments = self.training_arguments("run", {"train.epochs": 1, "data.path": self.path("mixed")}, "auto")
        self.run_code(0, *arguments, "--other-data")
        self.assertEqual([event["steps_done"] for event in events(self.path("run"), "epoch")], [10, 10])
        flipped = {"train.epochs": 2, "data.path": self.path("mixed"), "eval.flip": "yes", "train.lr": 0}
        for changes in (flipped, {**flipped, "train.epochs": 3}):
            self.train("run", changes, resume="auto")
        top1 = [event["test_top1"][0] for event in events(self.path("run"), "epoch")]
        self.assertEqual(self.last("run").attributes["best_top1"], max(top1[2:]))

    def test_nothing_to_resume(self):
        result = self.train("run", {"train.max_steps": 2}, resume="auto", ranks=2)
        self.assertIn("starting afresh", result.out)
        self.assertEqual(self.last("run").attributes["steps_done"], 2)

    def test_said_in_another_way(self):
        self.train("run", {"train.max_steps": 4, "model.width": 0, "model.blocks": "0", "model.student_width": 16})
        changes = {"model.students": "1,3,2", "model.width": 16, "model.blocks": "1,1,1,1", "model.student_width": 16}
        result = self.train("run", {**changes, "train.max_steps": 5}, resume="auto", ranks=2)
        self.assertIn("ranks are now 2, in the checkpoint 1", result.out)

    def test_file_of_an_earlier_version(self):
        """tests/data/checkpoint_0.1.0.h5 goes on: with a learning rate of 0 every weight stays, to the bit."""
        earlier = Checkpoint(EARLIER)
        self.run_code(0, "data", "synth", "--out", self.path("data"), "--train-images", 40, "--test-images", 10)
        changes = {"data.path": self.path("data"), "model.width": 2, "model.student_width": 4, "train.batch": 8,
                   "train.ema_decay": 0.9}
        self.train("start", {**changes, "train.max_steps": 1})
        path = self.path("earlier.h5")
        shutil.copy(EARLIER, path)
        with h5py.File(path, "r+") as file:  # of this set, whose pixels may depend on the mathematical library
            for key in ("train_set", "test_set"):
                file.attrs.modify(key, self.last("start").attributes[key])
        reseal(path)
        result = self.train("run", {**changes, "train.max_steps": 8, "train.lr": 0}, resume=path)
        self.assertIn("epoch 2, step 2", result.out)
        found = self.last("run")
        self.assertEqual(found.attributes["steps_done"], 8)
        self.assertEqual(sorted(found.tensors), sorted(earlier.tensors))
        for name, values in earlier.tensors.items():
            if name.startswith("weights/") and "running" not in name:
                self.assertEqual(found.tensors[name].tobytes(), values.tobytes(), name)

    def test_finished(self):
        self.train("run", {"train.epochs": 1})
        before = self.last("run")
        result = self.train("run", {"train.epochs": 1}, resume="auto")
        self.assertIn(f"nothing was left to train: {self.path('run', 'last.h5')}, of epoch 2, step 0", result.out)
        self.assertEqual(self.last("run").attributes["steps_done"], before.attributes["steps_done"])
        self.train("run", {"train.epochs": 2}, resume="auto")
        self.assertEqual(self.last("run").attributes["epoch"], 2)


class Refused(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.made = os.path.join(cls.class_folder, "made")
        values = {**SMALL, "data.path": cls.data, "output.dir": cls.made, "train.max_steps": 4,
                  "output.checkpoint_every": 2}
        result = run("train", *settings(values))
        if result.code != 0:
            raise AssertionError(f"no checkpoints: {result}")

    def setUp(self):
        super().setUp()
        shutil.copytree(self.made, self.path("run"))
        self.checkpoint = self.path("run", "last.h5")
        self.before = self.path("run", "previous.h5")

    def resume(self, changes, *words, path=None, ranks=1):
        result = run(*self.training_arguments("resumed", changes, path or self.checkpoint), ranks=ranks)
        self.assertIn(result.code, (1, 2), str(result))
        self.assertFalse(os.path.exists(self.path("resumed", "last.h5")), str(result))
        return self.refused(result, *words)

    def test_truncated(self):
        size = os.path.getsize(self.checkpoint)
        whole = self.path("whole.h5")
        shutil.copy(self.checkpoint, whole)
        for keep, ranks in ((size - 1, 1), (size // 2, 2), (100, 1), (0, 1)):
            with self.subTest(keep=keep, ranks=ranks):
                shutil.copy(whole, self.checkpoint)
                os.truncate(self.checkpoint, keep)
                self.resume({}, f"{self.checkpoint}: ", f"--resume {self.before}", ranks=ranks)
        shutil.copy(self.checkpoint, self.path("run", "best.h5"))
        message = self.resume({}, "best.h5: ", path=self.path("run", "best.h5"))
        self.assertNotIn("previous.h5", message, "it is not the one before best.h5")
        result = self.train("run", {"train.max_steps": 4}, resume=self.before)
        self.assertIn("epoch 1, step 2", result.out)
        self.assertEqual(self.last("run").attributes["steps_done"], 4)

    def test_changed_byte(self):
        with h5py.File(self.checkpoint, "r") as file:
            offset = file["weights/layer4.0.conv2.weight"].id.get_offset()
        for at in (offset + 17, os.path.getsize(self.checkpoint) // 3):
            path = self.path("changed.h5")
            shutil.copy(self.checkpoint, path)
            with open(path, "r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 1]))
            message = self.resume({}, path, path=path)
            self.assertNotIn("previous.h5", message, "there is none beside it")

    def test_foreign_files(self):
        path = self.path("foreign.h5")
        with h5py.File(path, "w") as file:
            file["weights/conv1.weight"] = [1.0, 2.0]
        self.resume({}, path, "not a teskd-checkpoint", path=path)
        with open(path, "w", encoding="utf-8") as file:
            file.write("no checkpoint at all\n" * 100)
        self.resume({}, path, path=path, ranks=2)
        self.resume({}, self.path("none.h5"), "No such file", path=self.path("none.h5"))
        self.resume({}, self.folder, "folder", path=self.folder)

    def test_other_network(self):
        self.resume({"model.network": "cifarresnet18"}, self.checkpoint, "cifarresnet18", "cifarresnet8")
        # Each tensor of the smaller network is in the larger one's checkpoint.
        self.train("large", {"model.network": "cifarresnet18", "train.max_steps": 1})
        self.resume({}, "cifarresnet18", "cifarresnet8", path=self.path("large", "last.h5"), ranks=2)

    def test_other_method(self):
        self.resume({"model.method": "plain"}, "model.method", self.checkpoint)
        self.train("plain", {"model.method": "plain", "train.max_steps": 1})
        self.resume({}, "model.method", path=self.path("plain", "last.h5"))

    def test_other_width(self):
        for ranks in (1, 2):
            message = self.resume({"model.width": 6}, self.checkpoint, "model.width: 6", "a network with 4",
                                  ranks=ranks)
            self.assertNotIn("previous.h5", message, "it is no better")
        self.resume({"model.student_width": 16}, self.checkpoint, "laterals.3.0.weight'", "[32, 32, 1, 1]", "[16, 32, 1, 1]")
        self.resume({"model.blocks": "1,1,1,2"}, self.checkpoint, "model.blocks: 1,1,1,2", "with 1,1,1,1")
        self.resume({"model.students": "3,2"}, self.checkpoint, "model.students: 3,2", "with 3,2,1")

    def test_other_classes(self):
        self.resume({"model.classes": 12}, self.checkpoint, "model.classes: 12", "with 10")

    def test_fewer_blocks(self):
        # Each tensor of the network with fewer blocks is in the checkpoint.
        changes = {"model.network": "cifarresnet18", "train.max_steps": 1}
        self.train("large", changes)
        self.resume({**changes, "model.blocks": "1,1,1,1"}, "model.blocks: 1,1,1,1", "2,2,2,2",
                    path=self.path("large", "last.h5"))

    def test_tensors_that_nobody_takes(self):
        path = self.path("more.h5")
        with h5py.File(self.checkpoint) as old, h5py.File(path, "w", libver="latest") as new:
            for name in old:
                old.copy(name, new)
            old.copy("weights/fc.weight", new, name="weights/fc_x.weight")
            for key, value in old.attrs.items():
                new.attrs[key] = value
        reseal(path)
        result = run(*self.training_arguments("resumed", None, path))
        self.refused(result, path, "fc_x.weight")

    def test_average_newly_on(self):
        last = self.train("run", {"train.ema_decay": 0.5, "train.max_steps": 4, "loss.temperature": 2}, resume="auto")
        self.assertIn("train.ema_decay is now 0.5, in the checkpoint 0: the average starts from", last.out)
        self.assertIn("loss.temperature is now 2, in the checkpoint 4", last.out)
        self.train("run", {"train.ema_decay": 0.5, "train.max_steps": 5}, resume="auto")
        self.assertIn("ema/fc.weight", self.last("run").tensors)
        # And off again: it is dropped.
        self.train("run", {"train.max_steps": 6}, resume="auto")
        self.assertNotIn("ema/fc.weight", self.last("run").tensors)

    def test_changes_within_an_epoch(self):
        self.resume({"train.seed": 7}, "not finished", "train.seed: 7", "with 0")
        self.resume({"train.seed": 7}, "not finished", "train.seed: 7", "with 0", ranks=2)
        self.resume({"train.batch": 40}, "not finished", "train.batch: 40", "with 20")
        self.resume({"data.train_images": 100}, "not finished", "data.train_images: 100")

    def test_changes_between_epochs(self):
        self.train("epoch", {"train.epochs": 1})
        arguments = self.training_arguments("next", {"train.batch": 40, "train.seed": 7, "data.train_images": 100},
                                            self.path("epoch", "last.h5"))
        self.run_code(0, *arguments, "--other-data")
        self.assertEqual(self.last("next").attributes["steps_done"], 10 + 3)

    def test_eval_refuses_too(self):
        os.truncate(self.checkpoint, 1000)
        result = self.run_code(1, "eval", "--checkpoint", self.checkpoint, ranks=2)
        self.refused(result, self.checkpoint)


class Files(ProgramTest):
    def test_what_a_run_leaves(self):
        self.train("run", {"output.checkpoint_every": 4})
        self.assertEqual(sorted(os.listdir(self.path("run"))), ["best.h5", "last.h5", "metrics.jsonl", "previous.h5"])
        self.assertEqual(self.last("run").attributes["steps_done"], 20)
        with h5py.File(self.path("run", "previous.h5")) as file:
            self.assertEqual(file.attrs["steps_done"], 16)
            self.assertEqual(int(file.attrs["epoch"]), 1)


load_tests = enough_under_sanitizers("Bitwise.test_2_ranks_synchronised_bn", "Bitwise.test_nothing_to_resume", "Refused", "Files")


if __name__ == "__main__":
    unittest.main()
