"""`teskd bench`: what it prints, on one rank and on two."""

import json
import re
import unittest

from program import ProgramTest, settings

SMALL = settings({"model.network": "cifarresnet8", "model.width": 4, "model.student_width": 32, "train.batch": 4,
                  "run.threads": 1})


class Bench(ProgramTest):
    def bench(self, *arguments, ranks=1):
        return self.run_code(0, "bench", *SMALL, "--steps", "2", *arguments, ranks=ranks).out

    def test_json(self):
        result = json.loads(self.bench("--json"))
        self.assertEqual(set(result), {"images_per_second", "step_ms", "gflops", "matmul_gflops", "copy_gbs", "floor_ms",
                                       "exposed_ms"})
        self.assertEqual(result.pop("exposed_ms"), 0)  # no peer
        for name, value in result.items():
            self.assertGreater(value, 0, name)
        self.assertAlmostEqual(result["images_per_second"] * result["step_ms"] / 4e3, 1, delta=0.01)

    def test_every_op_is_listed(self):
        table = self.bench()
        rows = {match[1] for match in re.finditer(r"^  (\w+) +\d+ +[\d.]+ +[\d.]+%", table, re.MULTILINE)}
        self.assertLess({"conv2d", "conv2d_wgrad", "bn_normalize", "sgd_update", "metric_add"}, rows)

    def test_reductions(self):
        self.assertNotIn("reductions", self.bench())
        line = re.search(r"reductions \(MPI\): ([\d.]+) ms of a step are exposed, ([\d.]+)%: ([\d.]+) ms of waiting for sums, "
                         r"([\d.]+) ms of moving them on", self.bench(ranks=2))
        exposed, share, waiting, advancing = map(float, line.groups())
        self.assertAlmostEqual(exposed, waiting + advancing, delta=0.011)
        self.assertTrue(waiting > 0 and advancing > 0 and share > 0)
        self.assertGreater(json.loads(self.bench("--json", ranks=2))["exposed_ms"], 0)

    def test_nodes(self):
        table = self.bench("--per-node")
        self.assertRegex(table, r"(?m)^  conv2d +conv1 +1 ")


if __name__ == "__main__":
    unittest.main()
