"""Training from images on disk: the same numbers from class folders and shards, for any threads, ranks and interruption;
bad images; classes that differ; sizes and orders."""

import json
import pathlib
import shutil
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


class Folders(ProgramTest):
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
        self.assertEqual(self.trained("threads", {"data.threads": 4}), first)
        self.expect(run("data", "pack", "--from", self.images, "--out", self.work / "shards"))
        shards = {"data.kind": "shards", "data.path": self.work / "shards", "data.threads": 2}
        self.assertEqual(self.trained("shards", shards), first)
        self.assertEqual(self.trained("staged", {**shards, "data.stage": self.work / "stage"}), first)
        self.assertTrue(list((self.work / "stage").glob("*/manifest.json")))
        self.train("resumed", {"train.max_steps": 2})
        self.train("resumed", {}, "--resume", "auto")
        steps = [r for r in numbers(self.work / "resumed") if r["event"] == "step"]
        self.assertEqual(steps, [r for r in first if r["event"] == "step"])

    def test_ranks(self):
        one = self.trained("one", {"run.sync_bn": "yes"})
        two = self.trained("two", {"run.sync_bn": "yes"}, ranks=2)
        for a, b in zip(one, two):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=1e-4 * abs(a["loss"]))

    def test_order_and_sizes(self):
        first = self.trained("global", {"train.epochs": 1})
        blocks = {"train.epochs": 1, "data.order": "block", "data.block_images": 8, "data.window_blocks": 2}
        self.assertNotEqual(self.trained("block", blocks), first)
        said = self.train("grows", {"data.image_size": "32..64", "train.epochs": 2})
        self.assertIn("images of 32x32 to 64x64", said.out)
        for values, expected in (({"data.eval_size": 64, "data.resize_size": 40}, "data.resize_size"),
                                 ({"data.image_size": "64,32"}, "data.image_size"),
                                 ({"data.crop_scale": "0.5"}, "data.crop_scale"),
                                 ({"data.kind": "cifar10", "data.image_size": 64}, "data.image_size")):
            self.assertIn(expected, self.train("refused", values, code=2).err)

    def test_bad_images(self):
        bad = sorted((self.images / "train/disc").iterdir())[0]
        bad.write_bytes(bad.read_bytes()[:200])
        said = self.train("substituted")
        self.assertEqual(said.err.count(str(bad)), 1, said.err)
        self.assertEqual(numbers(self.work / "substituted")[-2]["bad_images"], 1)
        self.assertIn(str(bad), self.train("fails", {"data.on_bad": "fail"}, code=1).err)
        other = sorted((self.images / "train/ring").iterdir())[0]
        other.write_bytes(b"nothing")
        self.assertIn("data.bad_limit", self.train("many", code=1).err)

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

    def test_classes(self):
        self.train("trained", {"train.max_steps": 1})
        best = self.work / "trained/last.h5"
        self.expect(run("eval", "--checkpoint", best))
        out = self.work / "network.safetensors"
        self.expect(run("export", "--checkpoint", best, "--format", "safetensors", "--out", out))
        text = out.read_bytes()
        header = json.loads(text[8:8 + int.from_bytes(text[:8], "little")])
        self.assertEqual(header["__metadata__"]["class_names"].split("\n"),
                         sorted(path.name for path in (self.images / "train").iterdir()))
        shutil.move(self.images / "val/star", self.images / "val/stars")
        refused = run("eval", "--checkpoint", best)
        self.assertEqual(refused.code, 2, str(refused))
        self.assertIn('"stars"', refused.err)
        (self.images / "val/empty").mkdir()
        self.assertIn("empty", run("eval", "--checkpoint", best).err)
        shutil.rmtree(self.images / "train")
        self.assertIn('no folder "train"', self.train("none", code=1).err)


load_tests = enough_under_sanitizers("Folders.test_bad_images", "Folders.test_classes")


if __name__ == "__main__":
    unittest.main()
