"""launch/gpu_check.sh without a GPU: where it finds the programs, its budget, its archive."""

import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest

from program import SOURCE, TESKD


class GpuCheck(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="teskd-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.made = self.bundle()

    def bundle(self):
        """A folder such as launch/bundle.sh makes, without its own libraries."""
        made = self.folder / "here" / "teskd"
        for name in ("bin", "launch"):
            (made / name).mkdir(parents=True)
        for name in ("gpu_check.sh", "nvidia_libraries.sh"):
            shutil.copy(SOURCE / "launch" / name, made / "launch")
        shutil.copy(SOURCE / "launch" / "bundled_run.sh", made / "run.sh")
        (made / "bin" / "teskd").symlink_to(TESKD)
        return made

    def check(self, code, *command, cwd=None):
        environment = {name: value for name, value in os.environ.items() if name != "TESKD_BUNDLE"}
        result = subprocess.run([str(word) for word in command], cwd=cwd or self.folder, env=environment, text=True,
                                capture_output=True)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def test_bundle_from_any_folder(self):
        made = self.made
        stage = ["launch/gpu_check.sh", "--device", "cpu", "--only", "device"]
        for cwd, run in [(self.folder / "here", "teskd/run.sh"), (made, "./run.sh"), (SOURCE, made / "run.sh")]:
            out = self.check(0, run, *stage, "--out", self.folder / "checks", cwd=cwd)
            self.assertRegex(out, r"(?m)^device +ok +\d+  cpu: float32")
        os.symlink(made / "run.sh", self.folder / "link.sh")
        self.assertIn(f"{made}/bin/teskd\n", self.check(0, "./link.sh", "sh", "-c", "command -v teskd"))
        self.assertIn("teskd 0", self.check(0, SOURCE / "launch/gpu_check.sh", *stage[1:], "--bundle", "here/teskd",
                                            "--out", "checks") + (self.folder / "checks/device.log").read_text())
        self.assertIn("usage: run.sh COMMAND", self.check(2, made / "run.sh"))

    def run_checks(self, code, *options):
        return self.check(code, SOURCE / "launch/gpu_check.sh", "--bundle", self.made, "--device", "cpu", *options)

    def test_a_stage_starts_with_its_whole_limit_left(self):
        out = self.run_checks(0, "--only", "device,memcheck", "--budget", "61", "--out", "a")
        self.assertRegex(out, r"(?m)^device +ok ")
        self.assertRegex(out, r"(?m)^memcheck +not run +0  \d+ s were left$")
        self.assertIn("not run, too little time was left: --only memcheck", out)
        out = self.run_checks(0, "--only", "device,cifar", "--budget", "30", "--out", "b")
        self.assertEqual(re.findall(r"(?m)^(\w+) +not run", out), ["device", "cifar"])

    def test_archive_takes_plans_along(self):
        plan = self.folder / "gpu_check/plans/teskd/a gpu/plan"
        plan.parent.mkdir(parents=True)
        plan.write_text("chosen")
        archive = self.folder / "found.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(self.folder / "gpu_check", "gpu_check")
        self.run_checks(0, "--only", "device", "--out", "out", "--archive", "found.tar.gz")
        self.assertEqual((self.folder / "out/plans/teskd/a gpu/plan").read_text(), "chosen")
        with tarfile.open(archive) as file:
            names = set(file.getnames())
            self.assertLessEqual({"gpu_check/device.log", "gpu_check/table.txt", "gpu_check/plans/teskd/a gpu/plan"},
                                 names)
            self.assertIn(b"device ", file.extractfile("gpu_check/table.txt").read())
        self.run_checks(0, "--only", "device", "--out", "new", "--archive", "new.tar")
        self.assertTrue(tarfile.is_tarfile(self.folder / "new.tar"))
        archive.write_text("no archive")
        self.assertIn("cannot be read", self.run_checks(2, "--only", "device", "--archive", "found.tar.gz"))
        self.assertEqual(archive.read_text(), "no archive")
        self.assertIn("no folder none", self.run_checks(2, "--only", "device", "--archive", "none/found.tar.gz"))


if __name__ == "__main__":
    unittest.main()
