"""How the program was compiled: what makes a fault in reading a foreign file harder to use."""

import os
import subprocess
import unittest

from program import TESKD


def readelf(*options):
    return subprocess.run(["readelf", "--wide", *options, TESKD], check=True, capture_output=True, text=True).stdout


class Hardening(unittest.TestCase):
    def test_position_independent(self):
        self.assertRegex(readelf("--file-header"), r"Type:\s+DYN")
        self.assertRegex(readelf("--dynamic"), r"FLAGS_1.*\bPIE\b")

    def test_relocations_are_read_only(self):
        self.assertIn("GNU_RELRO", readelf("--program-headers"))
        self.assertRegex(readelf("--dynamic"), r"FLAGS.*\bNOW\b")

    def test_stack_is_not_executable(self):
        stack = [line.split() for line in readelf("--program-headers").splitlines() if "GNU_STACK" in line]
        self.assertEqual([words[6] for words in stack], ["RW"])

    def test_stack_protector(self):
        self.assertIn("__stack_chk_fail", readelf("--symbols"))

    @unittest.skipIf(os.environ.get("TESKD_SANITIZED"), "sanitizers do that themselves")
    def test_fortified_calls(self):
        self.assertRegex(readelf("--symbols"), r"__\w+_chk\b")


if __name__ == "__main__":
    unittest.main()
