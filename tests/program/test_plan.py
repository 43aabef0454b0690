"""`teskd plan`: its tables and its JSON, published runs within five points, and what it refuses."""

import json
import pathlib
import sys
import unittest

from program import SOURCE, TESKD, ProgramTest, settings

sys.path.insert(0, str(SOURCE / "tests/bench"))
import published_runs  # noqa: E402  its folder has to be known first

SMALL = settings({"model.network": "cifarresnet8", "run.bucket_mib": 0.5})


class Plan(ProgramTest):
    def plan(self, *arguments):
        return json.loads(self.run_code(0, "plan", *arguments, "--json").out)

    def last(self, *arguments):
        return self.plan(*arguments)["nodes"][-1]

    def test_json(self):
        result = self.plan(*SMALL, "--nodes", 6, "--gpu-batch", 16)
        self.assertEqual([row["nodes"] for row in result["nodes"]], [1, 2, 4, 6])
        self.assertEqual(result["gpu_batch"], 16)
        self.assertFalse(result["step_given"])
        self.assertEqual(sum(bucket["bytes"] for bucket in result["buckets"]), result["gradient_bytes"])
        for row in result["nodes"]:
            self.assertEqual((row["gpus"], row["batch"]), (8 * row["nodes"], 16 * 8 * row["nodes"]))
            self.assertAlmostEqual(row["step_ms"], result["step_ms"] + row["straggling_ms"] + row["exposed_ms"], delta=2e-4)
            self.assertAlmostEqual(row["efficiency"], result["step_ms"] / row["step_ms"], delta=1e-3)
            self.assertAlmostEqual(row["images_per_second"] * row["step_ms"] / (1e3 * row["batch"]), 1, delta=1e-3)
            self.assertAlmostEqual(row["epoch_seconds"] * row["images_per_second"] / 50000, 1, delta=0.1)

    def test_buckets_follow_the_setting(self):
        few, many = (self.plan(*SMALL, "--gpu-batch", 16, "--set", f"run.bucket_mib={mib}") for mib in (4, 0.25))
        self.assertGreater(len(many["buckets"]), len(few["buckets"]))
        self.assertEqual(many["gradient_bytes"], few["gradient_bytes"])
        complete = [bucket["complete_ms"] for bucket in many["buckets"]]
        self.assertEqual(complete, sorted(complete))

    def test_batch_is_divided_among_all(self):
        self.assertEqual(self.plan(*SMALL, "--nodes", 2, "--set", "train.batch=64")["gpu_batch"], 4)
        refused = self.run_code(2, "plan", *SMALL, "--nodes", 3, "--set", "train.batch=64")
        self.refused(refused, "train.batch", "24", "--gpu-batch")

    def test_a_given_step_counts(self):
        result = self.plan(*SMALL, "--gpu-batch", 16, "--step-ms", 100, "--gpus", 1)
        self.assertTrue(result["step_given"])
        self.assertEqual(result["nodes"][0]["step_ms"], 100)
        self.assertEqual(result["nodes"][0]["efficiency"], 1)

    def test_network_and_settings_count(self):
        cluster = (*SMALL, "--gpu-batch", 16, "--nodes", 32, "--step-ms", 5)
        slow, fast = (self.last(*cluster, "--net", net) for net in (1, 100))
        self.assertLess(slow["efficiency"], fast["efficiency"])
        halved = self.last(*cluster, "--net", 1, "--set", "run.reduce_16bit=yes")
        self.assertLess(slow["efficiency"], halved["efficiency"])
        both = self.last(*cluster, "--net", 1, "--adapters", 2)
        self.assertLess(slow["efficiency"], both["efficiency"])
        patterns = [self.plan(*cluster, "--set", change)["pattern"]
                    for change in ("run.reduction=auto", "run.reduction=mpi", "run.deterministic=yes")]
        self.assertEqual(patterns, ["tree", "host-ring", "ring"])

    def test_images_that_are_read(self):
        arguments = ("--config", "imagenet_r18.ini", "--gpu-batch", 64, "--step-ms", 10, "--gpus", 1)
        row = self.last(*arguments, "--image-kb", 50, "--core-rate", 1000)
        self.assertAlmostEqual(row["read_mbs"], 6400 * 0.05, delta=0.01)
        self.assertEqual(row["cores"], 7)
        self.assertEqual(self.last(*SMALL, "--gpu-batch", 16)["cores"], 0)

    def test_tables(self):
        table = self.run_code(0, "plan", "--config", "imagenet_r50.ini", "--gpu-batch", 64, "--nodes", 16).out
        self.assertIn("resnet50 (teskd), 64 images per GPU", table)
        self.assertIn("at best of an H100, which no run has shown yet", table)
        for words in (r"^  bucket +MB", r"^ +nodes +GPUs", r"^ +16 +128 +8192 ", r"^  recipe: SGD, .*warm-up",
                      r"^  run\.reduce_16bit = yes +[\d.]+% \(\+", r"memory of a GPU: [\d.]+ GB"):
            self.assertRegex(table, f"(?m){words}")
        measured = self.run_code(0, "plan", *SMALL, "--gpu-batch", 64, "--step-ms", 7).out
        self.assertIn("7.00 ms, as given", measured)

    def test_recipes_follow_the_batch(self):
        for nodes, words in ((1, "SGD as for a small batch"), (64, "LARS, a warm-up"), (128, "LARS with all"), (512, "none:")):
            table = self.run_code(0, "plan", "--config", "imagenet_r18.ini", "--gpu-batch", 64, "--nodes", nodes).out
            self.assertIn(f"recipe: {words}", table)

    def test_layers_of_another_network(self):
        path = self.path("layers.csv")
        pathlib.Path(path).write_text("# two layers\nfirst,1000,5\nsecond,3000,5\n")
        result = self.plan("--layers", path, "--gpu-batch", 8, "--step-ms", 30, "--gpus", 1, "--set", "run.bucket_mib=0.001")
        self.assertEqual([bucket["bytes"] for bucket in result["buckets"]], [12000, 4000])
        self.assertEqual([bucket["complete_ms"] for bucket in result["buckets"]], [20, 30])

    def test_published_runs(self):
        planner = published_runs.Planner(TESKD, self.folder)
        for run, predicted in zip(published_runs.ASKED, planner.efficiencies(published_runs.ASKED)):
            with self.subTest(run=run.name):
                self.assertAlmostEqual(predicted, run.efficiency, delta=5)


class Refusals(ProgramTest):
    def refuse(self, *arguments, words, code=2):
        self.refused(self.run_code(code, "plan", *SMALL, *arguments), *words)

    def test_options(self):
        for option, value in (("nodes", 0), ("nodes", 100000), ("gpus", 0), ("adapters", 0), ("net", 0), ("inside", 0),
                              ("step-ms", 0), ("gpu-batch", 0), ("noise", 101), ("net-share", 0), ("image-kb", 0),
                              ("core-rate", 0)):
            self.refuse(f"--{option}", value, words=[f"--{option} {value}", "expected"])
        for value in ("fast", "-1", "nan", "1e999"):
            self.refuse("--net", value, words=["--net", "expected a number"])
        self.refuse("--pattern", "star", "--gpu-batch", 1, words=["--pattern star", "tree"])
        self.refuse("--gpu-batch", 60000, "--nodes", 16384, words=["--gpu-batch 60000"])
        self.refuse("--steps", 3, words=["--steps"])

    def test_settings(self):
        self.refuse("--gpu-batch", 3, "--set", "train.accumulate=2", words=["train.accumulate"])
        self.refuse("--gpu-batch", 3, "--set", "model.network=none", words=["model.network"])

    def test_layers(self):
        path = pathlib.Path(self.path("layers.csv"))
        path.write_text("first,1000,5\nsecond,many,5\n")
        given = ("--layers", path, "--gpu-batch", 1)
        self.refuse(*given, words=["--layers", "--step-ms"])
        self.refuse(*given, "--step-ms", 1, words=[f"{path}:2"], code=1)
        path.write_text("first,1000,0\n")
        self.refuse(*given, "--step-ms", 1, words=["no work"], code=1)
        self.refuse("--layers", self.path("nowhere"), "--gpu-batch", 1, "--step-ms", 1, words=["nowhere"], code=1)


if __name__ == "__main__":
    unittest.main()
