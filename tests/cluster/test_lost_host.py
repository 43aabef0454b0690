"""A host whose power fails for good: no launcher waits for it, and the training goes on with the others to the end."""

import os
import re
import unittest

from cluster import SCRATCH, Cluster, inside, ranks
from program import Checkpoint, relative_l2, run, settings
from supervised import TRAINING, Supervised

STEPS = 40
# With synchronised statistics and in float64, the number of ranks changes nothing that can be seen.
CHANGES = {**TRAINING, "data.train_images": 6 * STEPS, "train.batch": 6, "output.checkpoint_every": 10, "run.sync_bn": "yes",
           "model.method": "plain", "run.device": "reference", "dist.timeout_silence": 5}


class LostHost(unittest.TestCase):
    def train_alone(self):
        folder = SCRATCH / "alone"
        result = run("train", *settings({**CHANGES, "output.dir": folder}))
        self.assertEqual(result.code, 0, str(result))
        return Checkpoint(folder / "last.h5").weights()

    def test_power(self):
        cluster = Cluster(["a", "b", "c"])
        training = Supervised(cluster, "run", CHANGES)
        training.wait_for_steps(14)
        cluster.switch_off("c")
        code = training.finish(120)
        text = training.text()
        self.assertEqual(code, 0, text)
        self.assertEqual(ranks(), {})
        self.assertEqual(training.last().attributes["steps_done"], STEPS)
        self.assertLess(relative_l2(training.last().weights(), self.train_alone()), 1e-9)

        said = re.findall(r"^supervise \S+ \S+: (.*)", text, re.M)
        self.assertEqual(said[0], "3 ranks on a, b, c")
        self.assertEqual(said[1], "mpirun is killed: it is still there 5 s after the failure")
        self.assertRegex(said[2], r"rank 2 on c .* noticed \S+ s after the last step, mpirun ended \S+ s later$")
        self.assertEqual(said[3:5], ["no answer from c", "2 ranks on a, b"])
        self.assertRegex(said[5], r"restarted \S+ s after the last step, with \d+ steps to be done again$")
        self.assertRegex(said[6], r"past step \d+ again: the failure cost \S+ s in all$")
        self.assertEqual(said[7:], ["finished"])
        with open(os.path.join(training.folder, "supervise.log"), encoding="utf-8") as log:
            self.assertEqual(log.read(), text + "\n")


if __name__ == "__main__":
    inside()
    unittest.main()
