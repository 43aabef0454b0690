"""Trainings on class folders of JPEGs of all sizes: the same for any number of threads, ranks and stops; bad images; what
is no data set."""

import os
import pathlib
import shutil
import sys
import unittest

import numpy

from program import SMALL, ProgramTest, enough_under_sanitizers, events, run, settings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "export"))
from exchange import read_safetensors  # noqa: E402

try:
    from PIL import Image
except ImportError:
    sys.exit(77)

CLASSES = ("ant", "bee", "cat")
IMAGES = {"train": 9, "val": 4}  # of each class
EPOCH = -(-len(CLASSES) * IMAGES["train"] // 8)  # steps
CHANGES = {"data.kind": "folders", "data.image_size": 32, "run.device": "cpu", "train.batch": 8, "eval.batch": 8,
           "model.students": "3", "model.student_width": 8}
OF_TIME = ("images_per_second", "data_wait", "exposed_communication", "seconds")


def write_image(path, number, mode="RGB"):
    """A gradient with a stripe, whose sides are 40 to 100 pixels."""
    random = numpy.random.default_rng(number)
    height, width = random.integers(40, 101, 2)
    y, x = numpy.mgrid[:height, :width]
    channels = [y * a + x * b + 40 * (x % (number % 7 + 3)) for a, b in random.integers(1, 4, (3, 2))]
    image = Image.fromarray(numpy.stack(channels, -1).astype(numpy.uint8)).convert(mode)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    image.save(path)


def make_folders(root):
    number = 0
    for split, images in IMAGES.items():
        for name in CLASSES:
            for i in range(images):
                number += 1
                mode = {2: "L", 5: "CMYK"}.get(i, "RGB")
                write_image(f"{root}/{split}/{name}/{i}.{'png' if i == 3 else 'jpg'}", number, mode)


def truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)
    return path


class Folders(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.images = os.path.join(cls.class_folder, "images")
        make_folders(cls.images)

    def copy(self):
        shutil.copytree(self.images, self.path("images"))
        return self.path("images")

    def training_arguments(self, name, changes=None, resume=None):
        return super().training_arguments(name, {"data.path": self.images, **CHANGES, **(changes or {})}, resume)

    def lines(self, name):
        """What metrics.jsonl says of steps and epochs, but for times."""
        return [{key: value for key, value in event.items() if key not in OF_TIME}
                for kind in ("step", "epoch") for event in events(self.path(name), kind)]

    def losses(self, name):
        return [event["loss"] for event in events(self.path(name), "step")]

    def evaluate(self, name, code=0, **changes):
        return self.run_code(code, "eval", "--checkpoint", self.path(name, "last.h5"),
                             *settings({"run.device": "cpu", "run.threads": 1, "eval.batch": 8, **changes}))


class Same(Folders):
    """One training on one thread, and others that have to be the same."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.straight = os.path.join(cls.class_folder, "straight")
        made = run("train", *settings({**SMALL, **CHANGES, "data.path": cls.images, "output.dir": cls.straight,
                                       "data.threads": 1}))
        if made.code != 0:
            raise AssertionError(f"no training: {made}")

    def expect_straight(self, name):
        self.assertEqual(self.lines(name), self.lines(self.straight))

    def test_any_number_of_threads(self):
        lines = self.lines(self.straight)
        self.assertEqual([line["event"] for line in lines], 2 * EPOCH * ["step"] + 2 * ["epoch"])
        self.assertEqual({line["bad_images"] for line in lines if line["event"] == "step"}, {0})
        self.assertEqual(len({line["loss"] for line in lines if line["event"] == "step"}), 2 * EPOCH)
        for threads in (2, 4):
            self.train(f"threads{threads}", {"data.threads": threads})
            self.expect_straight(f"threads{threads}")

    def test_stopped_within_an_epoch(self):
        self.train("stopped", {"data.threads": 3, "train.max_steps": 2})
        result = self.train("stopped", {"data.order": "block"}, resume="auto", code=2)
        self.refused(result, "data.order", "not finished")
        self.train("stopped", {"data.threads": 2}, resume="auto")
        found, expected = self.lines("stopped"), self.lines(self.straight)
        self.assertEqual([line for line in found if line["event"] == "step"],
                         [line for line in expected if line["event"] == "step"])
        self.assertEqual(found[-1], {**expected[-1], **{key: found[-1][key] for key in found[-1] if "best" in key}})

    def test_2_ranks(self):
        self.train("ranks", {"run.sync_bn": "yes", "data.threads": 2}, ranks=2)
        for found, expected in zip(self.lines("ranks"), self.lines(self.straight), strict=True):
            self.assertEqual(sorted(found), sorted(expected))
            self.assertEqual((found["event"], found["epoch"], found["step"]),
                             (expected["event"], expected["epoch"], expected["step"]))
            for key in ("loss", "train_cross_entropy", "test_cross_entropy"):
                if key in expected:
                    numpy.testing.assert_allclose(found[key], expected[key], rtol=1e-4, err_msg=f"{key} of {expected}")

    def test_block_order(self):
        changes = {"data.order": "block", "data.block_images": 3, "data.window_blocks": 2}
        for threads in (1, 3):
            self.train(f"block{threads}", {**changes, "data.threads": threads})
        self.assertEqual(self.lines("block1"), self.lines("block3"))
        self.assertNotEqual(self.losses("block1"), self.losses(self.straight))

    def test_class_names(self):
        shutil.copytree(self.straight, self.path("run"))
        renamed = self.copy()
        for split in IMAGES:
            os.rename(f"{renamed}/{split}/bee", f"{renamed}/{split}/bug")
        shutil.rmtree(f"{renamed}/train")
        self.evaluate("run")
        os.rename(f"{renamed}/val/bug", f"{renamed}/val/bee")
        self.evaluate("run", **{"data.path": renamed})
        os.rename(f"{renamed}/val/bee", f"{renamed}/val/bug")
        self.refused(self.evaluate("run", code=2, **{"data.path": renamed}), "class 1", '"bee"', '"bug"', "last.h5")
        self.run_code(0, "export", "--checkpoint", self.path("run", "last.h5"), "--format", "safetensors", "--out",
                      self.path("net.safetensors"))
        _, metadata = read_safetensors(self.path("net.safetensors"))
        self.assertEqual(metadata["class_names"].split("\n"), list(CLASSES))


class Sizes(Folders):
    def test_sizes_grow(self):
        """Epoch 1 on 32 pixels, 2 on 64, where evaluations are from the start."""
        self.train("grow", {"data.image_size": "32..64", "data.threads": 2})
        self.train("small", {"data.image_size": 32, "data.eval_size": 64})
        self.assertEqual(self.losses("grow")[:EPOCH], self.losses("small")[:EPOCH])
        self.assertNotEqual(self.losses("grow")[EPOCH], self.losses("small")[EPOCH])
        first = [events(self.path(name), "epoch")[0]["test_cross_entropy"] for name in ("grow", "small")]
        self.assertEqual(*first)
        same, other = self.evaluate("grow", **{"data.eval_size": 64}).out, self.evaluate("grow", **{"data.eval_size": 32}).out
        self.assertEqual(self.evaluate("grow").out, same)
        self.assertNotEqual(same, other)

    def test_resize_size(self):
        result = self.train("run", {"data.eval_size": 40, "data.resize_size": 39}, code=2)
        self.refused(result, "data.resize_size: 39", "data.eval_size = 40")
        self.refused(self.train("run", {"data.resize_size": 31}, code=2), "data.resize_size: 31", "32 pixels")


class Bad(Folders):
    def test_substitute(self):
        folder = self.copy()
        bad = truncate(f"{folder}/train/bee/1.jpg")
        result = self.train("run", {"data.path": folder, "data.threads": 3})
        said = [line for line in result.err.splitlines() if bad in line]
        self.assertEqual(len(said), 1, str(result))
        self.assertIn("image 11 takes its place", said[0])
        self.assertEqual(events(self.path("run"), "step")[-1]["bad_images"], 1)

    def test_fail(self):
        folder = self.copy()
        bad = truncate(f"{folder}/train/bee/1.jpg")
        for ranks in (1, 2):
            result = self.train(f"run{ranks}", {"data.path": folder, "data.on_bad": "fail"}, ranks=ranks, code=1)
            self.refused(result, bad)

    def test_too_many(self):
        folder = self.copy()
        bad = [truncate(f"{folder}/train/{name}/1.jpg") for name in ("bee", "cat")]
        result = self.train("run", {"data.path": folder, "data.bad_limit": 0.001, "data.threads": 2}, code=1)
        last = result.messages()[-1]
        self.assertTrue(any(path in last for path in bad), str(result))
        self.assertIn("data.bad_limit = 0.001 allows 1", last)

    def test_bad_test_image(self):
        folder = self.copy()
        bad = truncate(f"{folder}/val/cat/0.jpg")
        self.refused(self.train("run", {"data.path": folder, "data.on_bad": "fail"}, code=1), bad)


class Refused(Folders):
    def refuse(self, folder, *words, ranks=1, code=1):
        result = self.train("run", {"data.path": folder}, code=code, ranks=ranks)
        self.refused(result, *words)
        self.assertFalse(os.path.exists(self.path("run", "last.h5")))

    def test_no_train(self):
        folder = self.copy()
        os.rename(f"{folder}/train", f"{folder}/images")
        for ranks in (1, 2):
            self.refuse(folder, f'{folder}: holds no folder "train"', ranks=ranks)

    def test_no_val(self):
        folder = self.copy()
        shutil.rmtree(f"{folder}/val")
        self.refuse(folder, f'{folder}: holds no folder "val"')

    def test_a_class_without_an_image(self):
        folder = self.copy()
        shutil.rmtree(f"{folder}/train/bee")
        os.mkdir(f"{folder}/train/bee")
        for ranks in (1, 2):
            self.refuse(folder, f"{folder}/train/bee: the class has no image", ranks=ranks)

    def test_other_classes_in_val(self):
        folder = self.copy()
        shutil.rmtree(f"{folder}/val/bee")
        self.refuse(folder, folder, "class 1", '"bee" in the training images', '"cat" in the test images')


load_tests = enough_under_sanitizers("Same.test_2_ranks", "Sizes.test_sizes_grow", "Bad")

if __name__ == "__main__":
    unittest.main()
