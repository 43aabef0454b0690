"""Standard input, output and error that are closed, full, or pipes that nobody reads any more."""

import json
import os
import re
import signal
import subprocess
import time
import unittest

from program import TESKD, ProgramTest, Result, enough_under_sanitizers, environment, stop

SHORT = {"train.epochs": 1, "train.max_steps": 4}
LONG = {"data.kind": "synthetic", "data.train_images": 2000, "data.test_images": 40, "train.epochs": 1000,
        "eval.every": 0}


class Streams(ProgramTest):
    def shell(self, script, *arguments):
        """Runs a line of bash in which "$@" is the program with arguments; its code is the program's."""
        done = subprocess.run(["bash", "-c", script, "bash", TESKD, *map(str, arguments)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=environment(), timeout=120, check=False)
        return Result(done.returncode, done.stdout, done.stderr, 0)

    def expect(self, code, script, *arguments):
        result = self.shell(script, *arguments)
        self.assertEqual(result.code, code, f"{script} {arguments}: {result}")
        return result

    def expect_whole_training(self, name):
        self.assertEqual(self.last(name).attributes["steps_done"], 4)
        with open(self.path(name, "metrics.jsonl"), encoding="utf-8") as file:
            events = [json.loads(line)["event"] for line in file]
        self.assertEqual(events.count("step"), 4)

    def printing_commands(self):
        """Commands whose work is what they print."""
        training = self.training_arguments("none", SHORT)
        yield ["info"]
        yield ["--help"]
        yield ["train", "--help"]
        yield ["info", "--settings"]
        yield [*training, "--print-config"]
        yield [*training, "--dry-run"]
        yield ["bench", *training[1:], "--steps", 1, "--json"]
        yield ["eval", "--checkpoint", self.path("run", "last.h5"), "--set", "run.threads=1"]
        yield ["reference", os.path.join(os.path.dirname(__file__), "../data/cifarresnet8.h5")]

    def test_closed(self):
        for closed in (">&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"):
            name = closed.replace(" ", "")
            self.expect(0, f'"$@" {closed}', *self.training_arguments(name, SHORT))
            self.expect_whole_training(name)
        table = self.path("p.csv")
        self.expect(0, '"$@" <&- >&- 2>&-', "eval", "--checkpoint", self.path(">&-", "last.h5"), "--predictions", table,
                    "--set", "run.threads=1")
        with open(table, encoding="utf-8") as file:
            lines = file.read().splitlines()
        self.assertEqual(len(lines), 61)
        for line in lines[1:]:
            self.assertRegex(line, r"^\d+,\d+,\d+,[01],[0-9.e-]+$")

    def test_full_disk(self):
        self.train("run", SHORT)
        for arguments in self.printing_commands():
            result = self.expect(1, '"$@" >/dev/full', *arguments)
            self.refused(result, "standard output: cannot be written: No space left on device")
        self.expect(0, '"$@" >/dev/full', *self.training_arguments("full", SHORT))
        self.expect_whole_training("full")
        self.expect(1, '"$@" 2>/dev/full', "eval", "--checkpoint", self.path("none"))

    def test_reader_that_leaves(self):
        self.train("run", SHORT)
        for arguments in list(self.printing_commands())[::3]:
            result = self.expect(0, '"$@" | true; exit ${PIPESTATUS[0]}', *arguments)
            self.assertEqual(result.err, "")
        result = self.expect(0, '"$@" | head -2; exit ${PIPESTATUS[0]}', *self.training_arguments("head", SHORT))
        self.assertEqual((len(result.out.splitlines()), result.err), (2, ""))
        self.expect_whole_training("head")
        self.expect(0, '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}', *self.training_arguments("both", SHORT))
        self.expect_whole_training("both")

    def test_reader_that_leaves_mpirun(self):
        """It is mpirun that ends then, and ends its ranks: they stop in order."""
        mpirun = f'{os.environ.get("MPIEXEC", "mpirun")} --oversubscribe --bind-to none -np 2 "$@" | head -2'
        self.shell(mpirun, *self.training_arguments("run", LONG))
        with open(self.path("run", "stopped"), encoding="utf-8") as file:
            step = int(re.search(r"stopped by SIGTERM in epoch \d+ after step (\d+)", file.read())[1])
        self.assertEqual(self.last("run").attributes["step"], step)

    def test_file_at_its_size_limit(self):
        """It is an error like any other, not a signal that kills."""
        result = self.expect(1, 'ulimit -f 8; "$@"', *self.training_arguments("run", SHORT))
        self.refused(result, "last.h5", "File too large")

    def test_interrupted_with_its_reader(self):
        """Ctrl-C reaches the whole pipeline, and the reader dies first."""
        log = self.path("log")
        process = subprocess.Popen(["bash", "-c", '"$@" | tee "$LOG"; exit ${PIPESTATUS[0]}', "bash", TESKD,
                                    *map(str, self.training_arguments("run", LONG))], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, env={**environment(), "LOG": log},
                                   start_new_session=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(stop, process)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if os.path.exists(log):
                with open(log, encoding="utf-8") as file:
                    if "step 5/" in file.read():
                        break
            time.sleep(0.005)
        subprocess.run(["pkill", "-INT", "-s", str(process.pid), "tee"], check=True)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        epoch, step = map(int, re.search(r"stopped by SIGINT in epoch (\d+) after step (\d+)", err).groups())
        at = self.last("run").attributes
        self.assertEqual((at["epoch"] + 1, at["step"]), (epoch, step))


load_tests = enough_under_sanitizers("Streams.test_closed")


if __name__ == "__main__":
    unittest.main()
