"""What launch/quickstart.sh builds: kernels for the GPU that is there, or for none; tools of its own stand for the real."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from program import SOURCE


def tool(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class Kernels(unittest.TestCase):
    def configured(self, nvidia_smi, cache=False):
        """The arguments of cmake, and what was said."""
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "launch").mkdir()
            (folder / "tools").mkdir()
            shutil.copy(SOURCE / "launch/quickstart.sh", folder / "launch")
            tool(folder / "launch/packages.sh", "exit 0")
            tool(folder / "tools/cmake", f'echo "$@" >>{folder}/arguments; exit 3')
            tool(folder / "tools/nvidia-smi", nvidia_smi)
            if cache:
                (folder / "build").mkdir()
                (folder / "build/CMakeCache.txt").touch()
            run = subprocess.run([folder / "launch/quickstart.sh"], capture_output=True, text=True, timeout=60,
                                 env={**os.environ, "PATH": f"{folder}/tools:{os.environ['PATH']}"})
            self.assertEqual(run.returncode, 3, run.stdout + run.stderr)
            self.assertIn("-DTESKD_CUDA=AUTO -DCMAKE_CUDA_ARCHITECTURES= ", run.stdout)
            return (folder / "arguments").read_text().split(), run.stdout

    def test_the_gpus_that_are_there(self):
        arguments, said = self.configured("printf '12.0\\n9.0\\n9.0\\n6.1\\n'")
        self.assertIn("-DCMAKE_CUDA_ARCHITECTURES=90-real;120-real", arguments)
        self.assertNotIn("-DTESKD_CUDA=OFF", arguments)
        self.assertIn("for the GPU of this machine (90-real;120-real)", said)

    def test_none(self):
        for answer in ("echo 'NVIDIA-SMI has failed'; exit 9", "exit 127", "echo 'No devices were found'", "echo '[N/A]'", "echo 6.1"):
            arguments, said = self.configured(answer)
            self.assertIn("-DTESKD_CUDA=OFF", arguments, answer)
            self.assertIn("for no GPU", said)

    def test_a_build_folder_that_is_there_keeps_its_own(self):
        arguments, said = self.configured("echo 9.0", cache=True)
        self.assertFalse([a for a in arguments if "CUDA" in a], arguments)
        self.assertIn("configured before", said)


if __name__ == "__main__":
    unittest.main()
