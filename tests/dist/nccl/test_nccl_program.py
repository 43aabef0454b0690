"""The whole program on several emulated GPUs, with sums by a fake NCCL: it trains as one rank does, and where sums or GPUs
fail it ends soon, with one message."""

import os
import pathlib
import sys
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "program"))

from program import HOST, ProgramTest, enough_under_sanitizers, relative_l2, run  # noqa: E402

RUN = {"model.student_width": 16, "data.train_images": 30, "data.test_images": 20, "train.batch": 10, "train.lr": 5e-4,
       "run.device": "cuda", "run.precision": "fp32", "run.sync_bn": "yes"}
FAKES = os.environ["FAKE_NCCL_FOLDER"]


class Nccl(ProgramTest):
    def start_ranks(self, name, reduction, gpus, fake=""):
        changes = {**RUN, "run.reduction": reduction}
        with mock.patch.dict(os.environ, {"TESKD_CUDA_LIBRARIES": FAKES, "FAKE_NCCL": fake, "EMULATED_DEFER": "1",
                                          "EMULATED_GPUS": str(gpus)}):
            return run(*self.training_arguments(name, changes), ranks=2)

    def fails(self, words, reduction, gpus, fake=""):
        result = self.start_ranks("failing", reduction, gpus, fake)
        self.assertNotEqual(result.code, 0, str(result))
        self.assertLess(result.seconds, 20, str(result))
        self.refused(result, *words)

    def test_two_ranks_train_as_one(self):
        self.train("one", RUN)
        result = self.start_ranks("two", "auto", 2)
        self.assertEqual((result.code, result.messages()), (0, []), str(result))
        self.assertLess(relative_l2(self.last("two").weights(), self.last("one").weights()), 1e-4)

    def test_too_few_gpus(self):
        counts = f"2 ranks on {HOST} share 1"
        self.fails([counts, "run.reduction: nccl needs a GPU for every rank"], "nccl", 1)
        result = self.start_ranks("shared", "auto", 1)
        self.assertEqual(result.code, 0, str(result))
        self.refused(result, "teskd: warning: ", f"{counts} GPU: ", "start 1 rank there")

    def test_a_lost_link(self):
        """The device never ends its work then: who waits for it, to free its memory say, waits for ever."""
        self.fails(["rank 0 on ", "the link to 10.0.0.7 is down"], "nccl", 2, "link_lost,abort_hangs")


load_tests = enough_under_sanitizers("Nccl.test_a_lost_link")


if __name__ == "__main__":
    unittest.main()
