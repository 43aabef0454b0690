"""`teskd data bench`: what it prints of class folders, on one and on two threads, and what it refuses."""

import json
import os
import re
import unittest

from program import ProgramTest, run, settings

try:
    import numpy
    from PIL import Image
except ImportError:
    Image = None

CLASSES, IMAGES = 3, 8


def write_with_pillow(folder):
    random = numpy.random.default_rng(0)
    for label in range(CLASSES):
        os.makedirs(os.path.join(folder, "train", f"class{label}"))
        for index in range(IMAGES):
            pixels = random.integers(0, 256, (80 + index, 100 + label, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(os.path.join(folder, "train", f"class{label}", f"{index}.jpg"))


def write_images(folder):
    """Class folders of JPEG files; False where nothing can make them."""
    if Image:
        write_with_pillow(folder)
        return True
    return run("data", "synth", "--folders", "--out", folder, "--train-images", 30, "--test-images", 10).code == 0


class DataBench(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folders = os.path.join(cls.class_folder, "folders")
        cls.written = write_images(cls.folders)

    def setUp(self):
        super().setUp()
        if not self.written:
            self.skipTest("neither Pillow nor teskd data synth can make class folders of JPEG files here")

    def arguments(self, **changes):
        values = {"data.kind": "folders", "data.path": self.folders, "data.image_size": 32, "data.threads": 2, **changes}
        return ["data", "bench", *settings(values)]

    def bench(self, *arguments, **changes):
        return self.run_code(0, *self.arguments(**changes), *arguments).out

    def test_json(self):
        result = json.loads(self.bench("--json", "--images-per-second", 1000))
        texts = {name for name, value in result.items() if isinstance(value, str)}
        self.assertEqual(texts, {"processor", "isa"})
        for name in set(result) - texts - {"loader"}:
            self.assertGreater(result[name], 0, name)
        self.assertEqual((result["image_size"], result["images_per_second"]), (32, 1000))
        self.assertEqual([row["threads"] for row in result["loader"]], [1, 2])
        for row in result["loader"]:
            self.assertGreater(row["images_per_second"], 0)
            self.assertAlmostEqual(row["ratio"], row["images_per_second"] / result["loader"][0]["images_per_second"],
                                   delta=0.01)
        self.assertLessEqual(abs(result["cores_needed"] - 1000 / result["per_core"]), 1.01)
        self.assertGreater(result["read"], result["decode"])
        self.check_averages(result)

    def check_averages(self, result):
        sizes = [os.path.getsize(os.path.join(folder, name))
                 for folder, _, names in os.walk(os.path.join(self.folders, "train")) for name in names]
        self.assertEqual(result["images"], len(sizes))
        self.assertAlmostEqual(result["mean_bytes"], sum(sizes) / len(sizes), delta=0.1)
        if Image:
            self.assertEqual((result["mean_height"], result["mean_width"]), (83.5, 101))

    def test_tables(self):
        table = self.bench("--images-per-second", 500)
        for row in ("read", "read, decoded whole", "read, random crop scaled to 32x32", "loader, batches of 32x32"):
            self.assertRegex(table, rf"(?m)^  {row} +[\d.]+ +[\d.]+$")
        self.assertEqual(re.findall(r"(?m)^  (\d+) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", table), ["1", "2"])
        self.assertRegex(table, r"(?m)^  cores needed for 500 images/s: \d+, at [\d.]+ images/s a core$")

    def damage(self):
        """Another copy of the images, of which one is none."""
        folder = self.path("damaged")
        os.makedirs(folder)
        write_images(folder)
        first = min(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
        with open(first, "wb") as file:
            file.write(b"no image")
        return folder, first

    def test_bad_image(self):
        folder, first = self.damage()
        changes = {"data.path": folder, "data.threads": 1}
        self.assertIn("cores needed", self.bench(**changes))
        result = self.run_code(1, *self.arguments(**changes, **{"data.on_bad": "fail"}))
        self.refused(result, first)

    def test_refused(self):
        for code, words, changes in ((2, ["data.kind", "cifar10"], {"data.kind": "cifar10"}),
                                     (2, ["data.path"], {"data.path": ""}),
                                     (1, ["nowhere"], {"data.path": self.path("nowhere")})):
            self.refused(self.run_code(code, *self.arguments(**changes)), *words)
        self.refused(self.run_code(2, *self.arguments(), "--images-per-second", 0), "--images-per-second")
        self.refused(self.run_code(2, *self.arguments(), ranks=2), "one rank")


if __name__ == "__main__":
    unittest.main()
