"""What does not fit together is refused: ranks with other settings or data, a resume on another data set."""

import os
import re
import shlex
import shutil
import subprocess
import unittest

import numpy

from program import HOST, MPIRUN, TESKD, ProgramTest, Result, environment, run


class Ranks(ProgramTest):
    def differ(self, changes, *words, code=2, arguments=(), program=TESKD, both=None):
        """Rank 1 is started with other settings, or is another program."""
        one, other = ([path, *map(str, self.training_arguments("run", {"train.max_steps": 1, **(both or {}), **c}))]
                      for path, c in ((TESKD, {}), (program, changes)))
        other.extend(arguments)
        choice = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] || exec {shlex.join(one)}; exec {shlex.join(other)}'
        done = subprocess.run(MPIRUN + ["-np", "2", "sh", "-c", choice], capture_output=True, text=True, env=environment(), timeout=120, check=False)
        result = Result(done.returncode, done.stdout, done.stderr, 0)
        if code == 0:
            self.assertEqual(result.code, 0, str(result))
            return
        self.assertEqual(result.code, code, str(result))
        self.refused(result, "rank 1 on ", *words)
        self.assertFalse(os.path.exists(self.path("run", "last.h5")))

    def other_data(self, change):
        folder = shutil.copytree(self.data, self.path(change.__name__))
        path = os.path.join(folder, "data_batch_1.bin")
        records = numpy.fromfile(path, dtype=numpy.uint8).reshape(-1, 3073)
        change(records).tofile(path)
        return folder

    def other_build(self):
        """The same program with another id in the linker's note."""
        with open(TESKD, "rb") as file:
            content = bytearray(file.read())
        note = re.search(rb"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0", content)
        content[note.end()] ^= 0xff
        path = self.path("teskd")
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o755)
        return path

    def test_program(self):
        build = re.search(r"^teskd \S+, build \w{20}$", run("info").out, re.MULTILINE)[0]
        self.differ({"train.lr": 0.06}, "this is teskd ", f"rank 0 runs {build};", f"is on {HOST}: copy one build",
                    program=self.other_build())

    def test_settings(self):
        self.differ({"train.lr": 0.06}, "train.lr: 0.06", "rank 0 has 0.05")
        self.differ({"train.batch": 40, "train.max_steps": 2}, "train.batch: 40", "rank 0 has 20")

    def test_options(self):
        for option in (["--resume", "auto"], ["--dump-graph", self.path("graph.dot")], ["--print-config"], ["--help"]):
            with self.subTest(option):
                self.differ({}, f'command line: "train {option[0]}"', 'rank 0 has "train"', arguments=option)

    def test_data(self):
        def fewer(records):
            return records[:-5]

        def relabelled(records):
            records[3, 0] ^= 1
            return records

        for change in (fewer, relabelled):
            self.differ({"data.path": self.other_data(change)}, "training set", "checksum", "rank 0 has")
        self.differ({"data.path": shutil.copytree(self.data, self.path("same")), "run.threads": 2}, code=0)


    def test_folders_that_one_rank_lacks(self):
        self.differ({"data.path": self.path("none")}, "none: not a folder", code=1,
                    both={"data.kind": "folders", "data.path": self.folder_of_images()})

    def folder_of_images(self):
        images = self.path("images")
        self.run_code(0, "data", "synth", "--folders", "--out", images, "--train-images", 40, "--test-images", 20)
        return images


class Resume(ProgramTest):
    def test_other_set(self):
        smaller = self.path("smaller")
        made = run("data", "synth", "--out", smaller, "--train-images", 180, "--test-images", 60)
        self.assertEqual(made.code, 0, str(made))
        self.train("within", {"train.max_steps": 5})
        self.train("between", {"train.epochs": 1})
        for name in ("within", "between"):
            result = self.train(name, {"data.path": smaller}, resume="auto", code=2)
            self.refused(result, "train_set", "180 images", "200 images")
        arguments = self.training_arguments("within", {"data.path": smaller}, "auto")
        self.refused(run(*arguments, "--other-data"), "not finished")
        arguments = self.training_arguments("between", {"data.path": smaller}, "auto")
        result = self.run_code(0, *arguments, "--other-data")
        self.assertIn("train_set is now 180 images", result.out)
        self.assertEqual(self.last("between").attributes["steps_done"], 10 + 9)


if __name__ == "__main__":
    unittest.main()
