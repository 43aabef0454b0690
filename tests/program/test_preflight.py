"""teskd preflight: its table and line of JSON, and the hosts that it names; what a launch is warned of."""

import json
import os
import re
import resource
import shlex
import subprocess
import time
import unittest

from program import HOST, MPIRUN, SMALL, TESKD, ProgramTest, Result, enough_under_sanitizers, environment, run, settings

load_tests = enough_under_sanitizers("Preflight.test_one_rank", "Preflight.test_two_ranks")


class Preflight(ProgramTest):
    def arguments(self, changes=None, *options):
        values = {**SMALL, "data.path": self.data, "output.dir": self.path("not", "yet"), **(changes or {})}
        return ["preflight", *settings(values), *options]

    def found(self, out):
        """The findings of each check."""
        answer = json.loads(out)
        checks = {}
        for finding in answer["findings"]:
            checks.setdefault(finding["check"], []).append(finding)
        return answer, checks

    def faults(self, result):
        self.assertEqual(result.code, 1, str(result))
        lines = result.out.splitlines()
        return [line for line in lines if "FAULT: " in line], self.refused(result, "preflight: ")

    def test_one_rank(self):
        result = self.run_code(0, *self.arguments())
        for word in ("preflight: 1 rank on 1 host", "program ", "build ", "GFLOP/s", "training set: 200 images",
                     "test set: 60 images", "MB/s written to", "ready: no fault found"):
            self.assertIn(word, result.out)
        self.assertEqual(os.listdir(self.folder), [], "something was left behind")

    def test_two_ranks(self):
        result = self.run_code(0, *self.arguments(None, "--json"), ranks=2)
        self.assertEqual(len(result.out.splitlines()), 1, result.out)
        answer, checks = self.found(result.out)
        self.assertEqual((answer["ranks"], answer["hosts"], answer["faults"]), (2, 1, 0))
        self.assertEqual([f["host"] for f in checks["device"]], [HOST, HOST])
        self.assertEqual([f["rank"] for f in checks["data"]], [0])
        sums = answer["all_reduce"]
        self.assertEqual((sums[0]["bytes"], sums[0]["ranks"], sums[0]["way"]), (4096, 2, "MPI"))
        for entry in sums:
            self.assertAlmostEqual(entry["mb_per_second"] * entry["seconds"] * 1e6 / entry["bytes"], 1)  # 2 (n-1)/n

    def test_faults(self):
        for changes, check, words in (
                ({"data.path": self.path("none")}, "data ", ["data_batch_1.bin", "looked for"]),
                ({"output.dir": "/proc/none"}, "output ", ["/proc: cannot make a file"]),
                ({"run.threads": os.cpu_count() + 1}, "cores ", [f"{os.cpu_count() + 1} threads compute on"])):
            with self.subTest(check):
                lines, message = self.faults(run(*self.arguments(changes)))
                for word in words:
                    self.assertIn(word, message)
                    self.assertTrue(any(line.startswith(check) and word in line for line in lines), lines)

    def test_full_disk(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        lines, message = self.faults(run(*self.arguments(), preexec_fn=limit))
        self.assertIn("cannot write a file of 64 MiB: File too large", message)
        self.assertEqual(os.listdir(self.folder), [])

    def test_stall(self):
        """Of rank 0's host, which alone writes to output.dir."""
        hanging = MPIRUN + ["-np", "2", "-x", f"LD_PRELOAD={os.environ['TESKD_HANGING_DISK']}"]
        begin = time.monotonic()
        done = subprocess.run([*hanging, TESKD, *map(str, self.arguments(None, "--patience", "1"))], capture_output=True,
                              text=True, env=environment(), timeout=120, check=False)
        self.assertLess(time.monotonic() - begin, 60)
        lines, message = self.faults(Result(done.returncode, done.stdout, done.stderr, 0))
        self.assertIn(f"rank 0 on {HOST}: preflight: output: no answer after 1 s", message)
        self.assertEqual(len(lines), 1, lines)
        self.assertEqual(os.listdir(self.folder), [])

    def test_usage(self):
        self.refused(self.run_code(2, *self.arguments(None, "--patience", "0")), "--patience")
        self.refused(self.run_code(2, *self.arguments({"train.batch": 21}), ranks=2), "train.batch", "multiple of 2")

    def test_gpus(self):
        library = os.environ["TESKD_FAKE_NVML"]
        variables = {"LD_LIBRARY_PATH": os.path.dirname(library)}
        for state, words in (("", []), ("hot", ["GPU 1 is slowed down by heat"]), ("lost", ["GPU 1 does not answer"]),
                             ("broken", ["GPU 1 has 3 uncorrected memory errors"])):
            with self.subTest(state):
                done = subprocess.run([TESKD, *map(str, self.arguments())], capture_output=True, text=True, check=False,
                                      env={**environment(), **variables, "FAKE_NVML": state})
                if words:
                    message = self.faults(Result(done.returncode, done.stdout, done.stderr, 0))[1]
                    self.assertIn(words[0], message)
                    continue
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("2 x Imagined GPU (80.0 GiB, up to 1980 MHz, ECC), driver 570.86", done.stdout)
                self.assertIn("1755 MHz (memory 2600) 45 C, 1755 MHz", done.stdout)


class Hosts(ProgramTest):
    """Two hosts that are one: each daemon of mpirun gets a host name of its own, and their ranks meet over loopback."""

    def preflight(self, other_data):
        agent = self.path("agent")
        with open(agent, "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\nhost=$1; shift\nexec unshare --user --map-root-user --uts '
                       'sh -c \'hostname "$0" && exec sh -c "$1"\' "$host" "$*"\n')
        os.chmod(agent, 0o755)
        command = [TESKD, "preflight", *settings({**SMALL, "output.dir": self.path("run")})]
        variables = {"OMPI_MCA_plm_rsh_agent": agent, "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_btl_tcp_if_include": "lo",
                     "OMPI_MCA_oob_tcp_if_include": "lo", "TESKD_DATA": self.data, "TESKD_DATA_1": other_data}
        script = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] && TESKD_DATA=$TESKD_DATA_1; ' \
                 f'exec {shlex.join(map(str, command))} --set "data.path=$TESKD_DATA"'
        done = subprocess.run([*MPIRUN, "-np", "2", "--host", "first,second", "sh", "-c", script], capture_output=True,
                              text=True, env={**environment(), **variables}, timeout=200, check=False)
        return Result(done.returncode, done.stdout, done.stderr, 0)

    def setUp(self):
        super().setUp()
        version = subprocess.run([MPIRUN[0], "--version"], capture_output=True, text=True, check=True).stdout
        if not re.search(r"\) 4\.", version):
            self.skipTest("what Open MPI 4 calls its agent")
        if subprocess.run(["unshare", "--user", "--map-root-user", "--uts", "true"], check=False).returncode != 0:
            self.skipTest("no names of hosts can be given here")

    def test_other_data_is_named(self):
        other = self.path("other")
        self.run_code(0, "data", "synth", "--out", other, "--train-images", 200, "--test-images", 50)
        result = self.preflight(other)
        self.assertEqual(result.code, 1, str(result))
        lines = {line[:23].split()[-1]: line for line in result.out.splitlines() if "test set: " in line}
        self.assertEqual(sorted(lines), ["first", "second"], str(result))
        self.assertIn("FAULT: rank 0 has another: training set", lines["second"])
        self.assertNotIn("FAULT", lines["first"])
        for check in ("clock", "latency", "sends", "receives"):
            self.assertRegex(result.out, rf"(?m)^{check} +(all|first .*\n +second) ")


class Launch(ProgramTest):
    """A training goes on, with a warning."""

    def test_fewer_cores_than_threads(self):
        threads = os.cpu_count() + 1
        first, second = ([TESKD, *map(str, self.training_arguments("run", {"train.max_steps": 1, "run.threads": n}))]
                         for n in (1, threads))
        choice = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] || exec {shlex.join(first)}; exec {shlex.join(second)}'
        done = subprocess.run(MPIRUN + ["-np", "2", "sh", "-c", choice], capture_output=True, text=True,
                              env=environment(), timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        warnings = [line for line in done.stderr.splitlines() if "warning: " in line]
        self.assertEqual(len(warnings), 1, done.stderr)
        for words in (f"rank 1 on {HOST}: {threads} threads compute on", "run.threads", "--bind-to none"):
            self.assertIn(words, warnings[0])


if __name__ == "__main__":
    unittest.main()
