"""Steps whose numbers are not finite: the first of them is named; with --resume it comes again to the bit; and with
run.check_finite the layer and the head whose value went first are named."""

import re
import unittest

import h5py
import numpy

from program import ProgramTest, enough_under_sanitizers, reseal, xxh3

DIVERGES = {"train.lr": 100, "train.epochs": 20, "train.weight_decay": 1, "model.student_width": 16}
LOOKED = {"run.check_finite": "yes"}
TWO_RANKS = {"train.accumulate": 2, "run.sync_bn": "yes"}
SINCE = re.compile(r"the loss is no longer finite since epoch (\d+), step (\d+)(?:, micro-batch (\d) of (\d))?;")
FIRST = re.compile(r"the numbers are no longer finite in epoch (\d+), step (\d+)(?:, micro-batch (\d) of (\d))?: the "
                   r"first is a result of (\w+) of ([\w.]+) \((\w+), (\w+)\)")


class BadStep(ProgramTest):
    def end(self, name, changes, ranks=1, resume=None):
        """The message of a training that diverges."""
        result = self.train(name, {**DIVERGES, **changes}, code=1, ranks=ranks, resume=resume)
        return self.refused(result, "no longer finite", "train.lr")

    def again(self, message):
        """What the message says is to be given to do the step again: a checkpoint, and settings."""
        return (re.search(r"--resume (\S+)", message).group(1),
                dict(setting.split("=") for setting in re.findall(r"--set (\S+)", message)))

    def check(self, changes, ranks):
        """Returns the number of the bad step and the message that names its layer."""
        places = [SINCE.search(self.end(f"every{every}", {**changes, "log.every": every}, ranks)).groups()
                  for every in (1, 1000)]
        self.assertEqual(*places)
        straight = self.end("straight", {**changes, **LOOKED, "output.checkpoint_every": 2}, ranks)
        path, settings = self.again(straight)
        self.assertLessEqual(int(settings["train.max_steps"]), 10 * int(places[0][0]) + int(places[0][1]) - 10)
        resumed = self.end("resumed", {**changes, **LOOKED, **settings}, ranks, resume=path)
        self.assertEqual(resumed.split(";")[0], straight.split(";")[0])
        return int(settings["train.max_steps"]), straight, path

    def test_the_step_comes_again_to_the_bit(self):
        bad, message, path = self.check({}, 1)
        self.assertIsNone(FIRST.search(message).group(3))
        # So does all that lies before it, whether the steps are looked at or not.
        before = {**DIVERGES, "train.max_steps": bad - 1, "eval.every": 0}
        self.train("unbroken", before)
        self.train("looked", {**before, **LOOKED}, resume=path)
        expected, found = self.last("unbroken").tensors, self.last("looked").tensors
        for name, values in expected.items():
            self.assertEqual(found[name].tobytes(), values.tobytes(), name)

    def test_two_ranks_and_micro_batches(self):
        message = self.check(TWO_RANKS, 2)[1]
        self.assertRegex(message, r"^teskd: rank \d on ")
        self.assertEqual(FIRST.search(message).group(4), "2")

    def spoil(self, name, tensor, value):
        """A checkpoint of the second step in which a tensor is finite, but too large to be worked with."""
        path = self.path(name, "last.h5")
        self.train(name, {**DIVERGES, "train.lr": 0.1, "train.max_steps": 2, "eval.every": 0})
        with h5py.File(path, "r+") as file:
            file[tensor][...] = numpy.full_like(file[tensor][()], value)
            file[tensor].attrs.modify("xxh3", xxh3(file[tensor][()].tobytes()))
        reseal(path)
        return path

    def test_the_layer_is_named(self):
        path = self.spoil("weight", "weights/fc_b2.weight", 3e38)
        message = self.end("layer", LOOKED, resume=path)
        self.assertEqual(FIRST.search(message).groups(), ("1", "3", None, None, "linear", "fc_b2", "student2", "forward"))
        self.assertIn(f"--resume {path} --set train.max_steps=3 does the step again", message)

    def test_an_update_is_named(self):
        path = self.spoil("momentum", "momentum/fc.weight", 3e38)
        huge = {"train.lr": 1000, "train.warmup_epochs": 0}
        message = self.end("update", {**huge, **LOOKED}, resume=path)
        self.assertEqual(FIRST.search(message).groups(), ("1", "4", None, None, "sgd_update", "fc.weight", "teacher", "update"))
        self.assertIn("in the step before", message)
        # In the last step nothing comes after it but the checkpoint, which is not written.
        message = self.end("saved", {**huge, **LOOKED, "train.max_steps": 3}, resume=path)
        self.assertIn("after step 3, the first of them in fc.weight", message)


load_tests = enough_under_sanitizers("BadStep.test_the_layer_is_named", "BadStep.test_an_update_is_named")


if __name__ == "__main__":
    unittest.main()
