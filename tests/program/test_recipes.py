"""The recipes in configs/: what they say, what they build, and how --config finds them."""

import os
import re
import shutil
import subprocess
import unittest

import program
from program import SOURCE, ProgramTest, environment

RECIPES = sorted((SOURCE / "configs").glob("*.ini"))
PUBLISHED = {f"cifar100_{name}.ini" for name in (
    "r18", "r34", "r50", "resnext18", "resnext34", "resnext50", "seresnet18", "seresnet34", "seresnet50", "vgg16",
    "vgg19")}
IMAGENET = {f"imagenet_r{depth}.ini" for depth in (18, 34, 50)}

# Millions of weights of the backbone and of the students.
WEIGHTS = {
    "cifar100_r18.ini": (11.2, 25.8),
    "cifar100_r34.ini": (21.3, 25.8),
    "cifar100_vgg16.ini": (15.3, 9.6),
    "imagenet_r18.ini": (11.7, 27.2),
}

LOSS = {"temperature": "4", "ce_weight": "0.2", "kd_weight": "0.8", "feature_weight": "1e-07", "teacher_weight": "1",
        "student_weights": "1,1,1", "kd_detach_teacher": "no"}
TRAIN = {"lr": "0.1", "momentum": "0.9", "nesterov": "yes", "decay_norm_and_bias": "yes", "label_smoothing": "0",
         "clip_norm": "0", "accumulate": "1", "ema_decay": "0", "schedule": "step", "gamma": "0.1",
         "warmup_epochs": "0"}
CIFAR = {**LOSS, **TRAIN, "epochs": "200", "batch": "128", "milestones": "100,150", "weight_decay": "0.0005",
         "kind": "cifar100", "augment": "yes", "drop_last": "no"}
LARGE = {**LOSS, **TRAIN, "epochs": "100", "batch": "256", "milestones": "30,60,90", "weight_decay": "0.0001",
         "kind": "shards", "image_size": "224", "resize_size": "256", "classes": "0"}


def resolved(text):
    """The keys of a printed configuration; a key that several sections have keeps the first section's value."""
    values = {}
    for key, value in re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE):
        values.setdefault(key, value)
    return values


class Recipes(ProgramTest):
    def test_all_are_there(self):
        self.assertEqual({path.name for path in RECIPES},
                         PUBLISHED | IMAGENET | {"cifar100_small.ini", "tiny_imagenet_r18.ini", "quickstart.ini"})

    def test_settings(self):
        for path in RECIPES:
            if path.name not in PUBLISHED | IMAGENET:
                continue
            with self.subTest(recipe=path.name):
                values = resolved(self.run_code(0, "--config", path, "--print-config").out)
                expected = CIFAR if path.name in PUBLISHED else LARGE
                self.assertEqual({key: values[key] for key in expected}, expected)
                self.assertEqual(values["method"], "teskd")
                self.assertEqual(values["dir"], f"runs/{path.stem}")
                name = path.stem.split("_")[1]
                depth = re.search(r"\d+$", name)[0]
                network = {"r" + depth: "cifarresnet" if path.name in PUBLISHED else "resnet"}.get(name)
                self.assertEqual(values["network"], network + depth if network else name)

    def test_dry_run(self):
        for path in RECIPES:
            with self.subTest(recipe=path.name):
                out = self.run_code(0, "--config", path, "--dry-run").out
                found = re.search(r"backbone (\S+) M weights, .* students (\S+) M,", out)
                for part, expected in enumerate(WEIGHTS.get(path.name, ())):
                    self.assertAlmostEqual(float(found[1 + part]), expected, delta=0.051)


class Lookup(ProgramTest):
    """A recipe is found by its name alone, relative to the program, where no file in the way has that name."""

    def lay_out(self, program_folder, recipe_folder):
        for folder in (program_folder, recipe_folder):
            os.makedirs(self.path(folder))
        binary = shutil.copy(program.TESKD, self.path(program_folder, "teskd"))
        for path in RECIPES:
            shutil.copy(path, self.path(recipe_folder))
        return binary

    def call(self, binary, *arguments):
        return subprocess.run([binary, *arguments], cwd=self.folder, env=environment(), capture_output=True, text=True,
                              timeout=300, check=False)

    def test_places(self):
        for program_folder, recipe_folder in (("installed/bin", "installed/share/teskd/configs"),
                                              ("source/build", "source/configs")):
            binary = self.lay_out(program_folder, recipe_folder)
            result = self.call(binary, "--config", "imagenet_r18.ini", "--dry-run")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(result.stdout.splitlines()[0],
                             f"settings from {os.path.realpath(self.path(recipe_folder))}/imagenet_r18.ini")
            self.assertIn("resnet18", result.stdout.splitlines()[1])

    def test_printed_settings_stay_settings(self):
        binary = self.lay_out("bin", "share/teskd/configs")
        result = self.call(binary, "--config", "cifar100_vgg19.ini", "--print-config")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("settings from", result.stdout)
        self.assertIn("network = vgg19", result.stdout)

    def test_file_comes_first(self):
        binary = self.lay_out("bin", "share/teskd/configs")
        with open(self.path("quickstart.ini"), "w", encoding="utf-8") as file:
            file.write("[train]\nepochs = 77\n")
        result = self.call(binary, "--config", "quickstart.ini", "--print-config")
        self.assertIn("epochs = 77", result.stdout)

    def test_unknown(self):
        binary = self.lay_out("bin", "share/teskd/configs")
        result = self.call(binary, "--config", "imagenet_r17.ini", "--dry-run")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("imagenet_r17.ini: no such file", result.stderr)
        for path in RECIPES:
            self.assertIn(path.name, result.stderr)
        result = self.call(binary, "--config", "./quickstart.ini", "--dry-run")
        self.assertIn("./quickstart.ini: cannot open: No such file", result.stderr)

    def test_no_recipes(self):
        os.makedirs(self.path("alone"))
        binary = shutil.copy(program.TESKD, self.path("alone", "teskd"))
        result = self.call(binary, "--config", "quickstart.ini", "--dry-run")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("no such file, and no recipes beside the program", result.stderr)


if __name__ == "__main__":
    unittest.main()
