"""`teskd reference`: the program's own step against results computed elsewhere, and that a wrong number is noticed."""

import os
import pathlib
import re
import shutil
import sys
import unittest

import h5py

from program import SOURCE, ProgramTest, enough_under_sanitizers

SMALL = SOURCE / "tests/data/cifarresnet8.h5"
LARS = SOURCE / "tests/data/cifarresnet8_lars.h5"
REWRITES = ("run.rewrite_upsample", "run.rewrite_fuse", "run.rewrite_patch", "run.rewrite_upsample_bn",
            "run.rewrite_linear_bn", "run.rewrite_bias")
ISAS = {"auto": [], "baseline": [], "avx2": ["avx2", "fma"], "avx512": ["avx512f", "avx512bw", "avx512dq", "avx512vl"]}


def processor_flags():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


def reference_folder():
    return pathlib.Path(os.environ.get("TESKD_REFERENCE_DIR", SOURCE.parent / "shared/reference"))


class Comparison(ProgramTest):
    def compare(self, path, device, *assignments, code=0):
        """{quantity: (error, bound, verdict)}"""
        arguments = [part for a in assignments for part in ("--set", a)]
        result = self.run_code(code, "reference", path, "--device", device, *arguments)
        lines = re.findall(r"^ +(\S.*?) +(\S+) +(\S+)  (ok|OUT OF BOUNDS)$", result.out, re.MULTILINE)
        self.assertGreater(len(lines), 40, str(result))
        self.assertEqual("all within bounds" in result.out, code == 0)
        return {what: (float(error), float(bound), verdict) for what, error, bound, verdict in lines}, result

    def check(self, path, device, *assignments):
        lines, _ = self.compare(path, device, *assignments)
        for what, (error, bound, verdict) in lines.items():
            self.assertEqual(verdict, "ok", what)
            self.assertLessEqual(error, bound, what)
        for step in range(3):
            self.assertIn(f"step {step} loss total", lines)
        for what in ("input generator", "gradients", "updated weights", "running statistics"):
            self.assertIn(what, lines)
        for head in ("teacher", "student3", "student2", "student1"):
            for group in ("logits", "features", "eval_logits"):
                self.assertIn(f"{group} of {head}", lines)
        if device == "reference":
            self.assertTrue(all(bound <= 1e-9 for _, bound, _ in lines.values()))

    def test_reference_device(self):
        self.check(SMALL, "reference")

    def test_lars(self):
        for device in ("reference", "cpu"):
            self.check(LARS, device)

    def test_each_rewrite_off(self):
        for rewrite in REWRITES:
            with self.subTest(rewrite=rewrite):
                self.check(SMALL, "reference", f"{rewrite}=no")

    def test_each_rewrite_alone(self):
        off = [f"{rewrite}=no" for rewrite in REWRITES]
        self.check(SMALL, "reference", *off)
        for rewrite in REWRITES:
            with self.subTest(rewrite=rewrite):
                self.check(SMALL, "reference", *off, f"{rewrite}=yes")

    def check_cpu(self, isa):
        missing = [flag for flag in ISAS[isa] if flag not in processor_flags()]
        if missing:
            result = self.run_code(2, "reference", SMALL, "--device", "cpu", "--set", f"run.isa={isa}")
            self.refused(result, "this processor has no")
            self.skipTest(f"{isa}: this processor lacks {', '.join(missing)}")
        self.check(SMALL, "cpu", f"run.isa={isa}")
        self.check(SMALL, "cpu", f"run.isa={isa}", *[f"{rewrite}=no" for rewrite in REWRITES])

    def test_cpu_auto(self):
        self.check_cpu("auto")

    def test_cpu_baseline(self):
        self.check_cpu("baseline")

    def test_cpu_avx2(self):
        self.check_cpu("avx2")

    def test_cpu_avx512(self):
        self.check_cpu("avx512")

    def test_published_network(self):
        path = reference_folder() / "cifarresnet18.h5"
        if not path.exists():
            print(f"{path} is not there: the published network was not compared", file=sys.stderr)
            return
        self.check(path, "reference")
        self.check(path, "cpu")


class Altered(Comparison):
    """A file with one other number: exactly the lines of that quantity are out of bounds."""

    def alter(self, dataset, index, factor, *expected, device="reference"):
        path = self.path("altered.h5")
        shutil.copy(SMALL, path)
        with h5py.File(path, "r+") as file:
            values = file[dataset]
            self.assertNotEqual(values[index], 0)
            values[index] = values[index] * factor
        lines, result = self.compare(path, device, code=1)
        wrong = [what for what, line in lines.items() if line[2] == "OUT OF BOUNDS"]
        self.assertEqual(len(wrong), len(expected), wrong)
        for what, pattern in zip(wrong, expected):
            self.assertRegex(what, f"^{pattern}$")
        self.refused(result, path, f"{len(expected)} lines are out of bounds" if len(expected) > 1 else "out of bounds")

    def test_input(self):
        self.alter("input_head", 3, 1.0001, "input generator")

    def test_logits(self):
        self.alter("logits", (2, 1, 7), 1 + 1e-6, "logits of student2")
        self.alter("eval_logits", (0, 3, 0), 1 + 1e-6, "eval_logits of teacher")

    def test_features(self):
        self.alter("features", (3, 0, 5), 1 + 1e-6, "features of student1")

    def test_losses(self):
        self.alter("losses", (1, 6), 1 + 1e-7, "step 1 loss kd student2")
        self.alter("losses", (2, 0), 1 + 1e-7, "step 2 loss total")

    def test_gradient(self):
        self.alter("gradients/layer2.0.conv1.weight/value", 5, 1.01, "gradients", "worst: layer2.0.conv1.weight")

    def test_weight(self):
        self.alter("after/fc.weight/value", 9, 1.001, "updated weights", "worst: fc.weight")

    def test_running_statistics(self):
        self.alter("after/layer3.0.bn2.running_var", 2, 1.001, "running statistics",
                   "worst: layer3.0.bn2.running_var")

    def test_float32(self):
        self.alter("logits", (1, 0, 0), 1.01, "logits of student3", device="cpu")
        self.alter("losses", (0, 1), 1.001, "step 0 loss ce teacher", device="cpu")

    def test_missing_dataset(self):
        path = self.path("less.h5")
        shutil.copy(SMALL, path)
        with h5py.File(path, "r+") as file:
            del file["gradients/conv1.weight"]
        self.refused(self.run_code(1, "reference", path, "--device", "reference"), path, "gradients", "conv1.weight")

    def test_surplus_tensor(self):
        path = self.path("more.h5")
        shutil.copy(SMALL, path)
        with h5py.File(path, "r+") as file:
            file.copy("gradients/conv1.weight", "gradients/conv2.weight")
        self.refused(self.run_code(1, "reference", path, "--device", "reference"), path, "gradients")

    def test_no_reference_file(self):
        self.refused(self.run_code(1, "reference", self.path("none.h5")), self.path("none.h5"))
        with open(self.path("text.h5"), "w", encoding="utf-8") as file:
            file.write("no numbers\n")
        self.refused(self.run_code(1, "reference", self.path("text.h5")), self.path("text.h5"))


# The altered files are compared by the tests above only.
for name in [name for name in dir(Comparison) if name.startswith("test_")]:
    setattr(Altered, name, None)


load_tests = enough_under_sanitizers("Comparison.test_reference_device", "Comparison.test_cpu_auto",
                                     "Comparison.test_cpu_baseline", "Altered.test_input",
                                     "Altered.test_missing_dataset", "Altered.test_surplus_tensor",
                                     "Altered.test_no_reference_file")


if __name__ == "__main__":
    unittest.main()
