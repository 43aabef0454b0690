"""The whole program on the emulated GPU: trainings that agree with the CPU's, whatever is captured and however late the
GPU does its work."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import unittest
from unittest import mock

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "program"))

from program import (HOST, MPIRUN, TESKD, ProgramTest, enough_under_sanitizers, environment, events,  # noqa: E402
                     relative_l2, reseal, xxh3)

# Two epochs of three steps: the first runs as it is, the second is captured, the others are replayed.
FEW = {"model.student_width": 16, "data.train_images": 30, "data.test_images": 20, "train.batch": 10, "train.lr": 5e-4}
GPU = {**FEW, "run.device": "cuda", "run.precision": "fp32", "run.deterministic": "yes"}
LATE = {"EMULATED_DEFER": "1"}


class Training(ProgramTest):
    def weights(self, name, changes, ranks=1, replays=None, **environment):
        with mock.patch.dict(os.environ, {"EMULATED_REPORT": "1", **environment}):
            result = self.train(name, changes, ranks=ranks)
        if replays is not None:
            found = re.search(r"^emulated GPU: (\d+) replays$", result.err, re.MULTILINE)
            self.assertEqual(int(found.group(1)) > 0, replays, str(result))
        return self.last(name).weights()

    def check_losses(self, name, expected, bound):
        for a, b in zip(events(self.path(name), "epoch"), events(self.path(expected), "epoch"), strict=True):
            for group in ("train_cross_entropy", "train_kd", "test_cross_entropy"):
                for x, y in zip(a[group], b[group], strict=True):
                    self.assertAlmostEqual(x / y, 1, delta=bound, msg=group)

    def check(self, precision, bound, loss_bound):
        cpu = self.weights("cpu", {**FEW, "run.device": "cpu"})
        gpu = self.weights("gpu", {**GPU, "run.precision": precision})
        error = relative_l2(gpu, cpu)
        print(f"{precision}: weights and statistics of the GPU against the CPU: {error:.1e}")
        self.assertLess(error, bound)
        self.check_losses("gpu", "cpu", loss_bound)

    def test_float32(self):
        self.check("fp32", 5e-5, 1e-3)

    def test_float16(self):
        self.check("fp16", 5e-4, 1e-2)

    def test_bfloat16(self):
        self.check("bf16", 2e-3, 5e-2)

    def test_capture_changes_nothing(self):
        for precision in ("fp32", "fp16"):
            expected = self.weights(f"plain_{precision}", {**GPU, "run.precision": precision, "run.capture": "no"})
            for name, capture, environment in (("captured", "yes", {}), ("late", "no", LATE), ("both", "yes", LATE)):
                got = self.weights(f"{name}_{precision}", {**GPU, "run.precision": precision, "run.capture": capture},
                                   replays=capture == "yes", **environment)
                self.assertEqual(got.tobytes(), expected.tobytes(), name)

    def test_ranks_share_a_gpu(self):
        changes = {**GPU, "run.sync_bn": "yes"}
        one = self.weights("1", changes)
        for name, gpus in (("shared", "1"), ("apart", "2")):
            two = self.weights(name, {**changes, "run.reduction": "mpi"}, ranks=2, EMULATED_GPUS=gpus, **LATE)
            self.assertLess(relative_l2(two, one), 1e-4)

    def test_resumes_bit_for_bit(self):
        straight = self.weights("straight", GPU)
        self.weights("part", {**GPU, "train.epochs": 1})
        self.train("part", GPU, resume="auto")
        self.assertEqual(self.last("part").weights().tobytes(), straight.tobytes())


class NotFinite(ProgramTest):
    def end(self, name, changes, resume=None, **environment):
        """What the message of a training says that diverges."""
        with mock.patch.dict(os.environ, environment):
            result = self.train(name, {**GPU, "run.check_finite": "yes", **changes}, code=1, resume=resume)
        return self.refused(result, "no longer finite").split(";")[0]

    def test_the_layer_is_named(self):
        # In the second epoch, whose steps are replays where they are captured.
        for precision in ("fp32", "bf16"):
            diverges = {"run.precision": precision, "train.lr": 1000}
            plain = self.end(f"plain_{precision}", {**diverges, "run.capture": "no"})
            self.assertRegex(plain, r"epoch 2, step \d: the first is a result of \w+ of [\w.]+ \(\w+, forward\)")
            self.assertEqual(self.end(f"captured_{precision}", diverges, **LATE), plain)

    def test_overflow_that_no_scale_helps_against(self):
        path = self.path("run", "last.h5")
        self.train("run", {**GPU, "run.precision": "fp16", "train.max_steps": 1, "eval.every": 0})
        with h5py.File(path, "r+") as file:  # as 16 halvings and as many steps at the least scale leave it, but for two
            file["loss_scale"][...] = numpy.array([1, 0, 30, 30], numpy.float32)
            file["loss_scale"].attrs.modify("xxh3", xxh3(file["loss_scale"][()].tobytes()))
        reseal(path)
        overflows = {"run.precision": "fp16", "loss.ce_weight": 1e6, "log.every": 1}
        self.assertIn("the gradients of 32 steps in a row, up to epoch 1, step 3, are no longer finite in 16 bits",
                      self.end("line", {**overflows, "run.check_finite": "no"}, resume=path))
        self.assertRegex(self.end("looked", overflows, resume=path),
                         r"epoch 1, step 3: the first is a result of cross_entropy_grad of loss.student1 \(student1, backward\)")


class Reports(ProgramTest):
    def test_info(self):
        with mock.patch.dict(os.environ, {"EMULATED_GPUS": "2"}):
            text = self.run_code(0, "info").out
        self.assertIn("GPU 1: Emulated GPU, compute capability 9.0", text)
        self.assertIn("CUDA runtime 13.0, driver 13.0", text)

    def test_out_of_memory_is_told(self):
        result = self.train("large", {"run.device": "cuda", "train.batch": 100000, "data.kind": "synthetic",
                                      "model.width": 64, "data.train_images": 100000}, code=1)
        self.refused(result, "the device has no", "images per rank would fit", "The largest values")


class Launch(ProgramTest):
    def test_unequal_gpus_are_told(self):
        command = shlex.join([TESKD, *self.training_arguments("run", {**GPU, "train.max_steps": 1, "run.reduction": "mpi"})])
        choice = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] && export EMULATED_GIB=2; exec {command}'
        done = subprocess.run([*MPIRUN, "-np", "2", "sh", "-c", choice], capture_output=True, text=True, env=environment(),
                              timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        warnings = [line for line in done.stderr.splitlines() if "warning: " in line]
        self.assertEqual(len(warnings), 1, done.stderr)
        for words in (f"rank 1 on {HOST}: this rank has ", "(sm_90, 2 GiB)", "rank 0 ", "(sm_90, 1 GiB)"):
            self.assertIn(words, warnings[0])


load_tests = enough_under_sanitizers("Training.test_float16", "NotFinite.test_the_layer_is_named", "Reports")


if __name__ == "__main__":
    unittest.main()
