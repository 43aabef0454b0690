"""Training from shards: the numbers of the class folders that were packed, also from a copy on a host's own disk; a
flipped bit; settings that contradict each other."""

import json
import pathlib
import unittest

from program import ProgramTest, enough_under_sanitizers, run, settings

TIMES = {"seconds", "images_per_second", "data_wait"}
SMALL = {"model.network": "cifarresnet8", "model.width": 4, "model.method": "plain", "data.kind": "folders",
         "data.image_size": 32, "train.batch": 20, "train.epochs": 2, "train.lr": 0.05, "run.threads": 1, "log.every": 1,
         "eval.every": 2}


def numbers(folder):
    """What is learned: every record, without how long it took."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in r.items() if key not in TIMES} for r in records if r["event"] != "resume"]


class Shards(ProgramTest):
    def setUp(self):
        super().setUp()
        self.work = pathlib.Path(self.folder)
        self.images = self.work / "images"
        self.expect(run("data", "synth", "--folders", "--out", self.images, "--train-images", 70, "--test-images", 20))

    def expect(self, result, code=0):
        self.assertEqual(result.code, code, str(result))
        return result

    def train(self, name, more=None, *options, ranks=1, code=0):
        values = {**SMALL, "data.path": self.images, "output.dir": self.work / name, **(more or {})}
        return self.expect(run("--device", "cpu", *settings(values), *options, ranks=ranks), code)

    def trained(self, name, more=None, *options, **keywords):
        self.train(name, more, *options, **keywords)
        return numbers(self.work / name)

    def test_the_same_numbers(self):
        first = self.trained("first")
        self.assertEqual(first[-1]["event"], "epoch")
        self.expect(run("data", "pack", "--from", self.images, "--out", self.work / "shards"))
        shards = {"data.kind": "shards", "data.path": self.work / "shards", "data.threads": 2}
        self.assertEqual(self.trained("shards", shards), first)
        self.assertEqual(self.trained("staged", {**shards, "data.stage": self.work / "stage"}), first)
        self.assertTrue(list((self.work / "stage").glob("*/manifest.json")))

    def test_refused(self):
        for values, expected in (({"data.eval_size": 64, "data.resize_size": 40}, "data.resize_size"),
                                 ({"data.image_size": "64,32"}, "data.image_size"),
                                 ({"data.crop_scale": "0.5"}, "data.crop_scale"),
                                 ({"data.kind": "cifar10", "data.image_size": 64}, "data.image_size")):
            self.assertIn(expected, self.train("refused", values, code=2).err)

    def test_a_flipped_bit_in_a_shard(self):
        self.expect(run("data", "pack", "--from", self.images, "--out", self.work / "shards"))
        shard = self.work / "shards/train-00000.h5"
        data = bytearray(shard.read_bytes())
        record = json.loads((self.work / "shards/manifest.json").read_text())["train"]["shards"][0]
        data[record["offset"] + record["bytes"] // 2] ^= 4
        shard.write_bytes(data)
        shards = {"data.kind": "shards", "data.path": self.work / "shards"}
        said = self.train("trained", shards)
        self.assertIn("bad image: ", said.err)
        self.assertIn("train-00000.h5", said.err)


load_tests = enough_under_sanitizers("Shards.test_a_flipped_bit_in_a_shard")


if __name__ == "__main__":
    unittest.main()
