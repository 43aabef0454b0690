"""Signals from the first moment on: which of them stop a training in order, the file and the message that tell of it, and
who is named; launches in which every process would train alone."""

import os
import re
import signal
import subprocess
import time
import unittest

from program import HOST, MPIRUN, TESKD, ProgramTest, enough_under_sanitizers, environment, finish, start, stop
from test_killed_rank import alive, children

LONG = {"data.kind": "synthetic", "data.train_images": 2000, "data.test_images": 40, "train.epochs": 1000,
        "eval.every": 0}
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


# Under sanitizers, whose library has to be loaded first of all, without it.
TAKES_HANGUP = [] if os.environ.get("TESKD_SANITIZED") else ["env", f"LD_PRELOAD={os.environ['TESKD_TAKES_HANGUP']}"]
OPEN_MPI_4 = ") 4." in subprocess.run([MPIRUN[0], "--version"], capture_output=True, text=True, check=True,
                                      env=environment()).stdout


def setUpModule():
    for number in STOPPING:  # whatever these tests were started with
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError("waited in vain")


def takes_signals(pid):
    """Whether SIGTERM is blocked in the main thread: another one waits for it."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return int(re.search(r"SigBlk:\s*(\S+)", file.read())[1], 16) >> (signal.SIGTERM - 1) & 1


class Signalled(ProgramTest):
    def begin(self, name, ranks=1, prefix=()):
        arguments = self.training_arguments(name, LONG)
        if prefix:
            process = subprocess.Popen([*prefix, TESKD, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                                       stderr=subprocess.PIPE, start_new_session=True, env=environment())
        else:
            process = start(*arguments, ranks=ranks)
        self.addCleanup(stop, process)
        return process

    def steps(self, name):
        try:
            with open(self.path(name, "metrics.jsonl"), encoding="utf-8") as file:
                return sum('"step"' in line for line in file)
        except OSError:
            return 0

    def wait_for_steps(self, name, count=3):
        wait_for(lambda: self.steps(name) >= count)

    def ranks_of(self, process, count=2):
        """{rank: pid} of ranks that have come to main."""
        pids = wait_for(lambda: (lambda found: found if len(found) == count else None)(children(process.pid)))
        wait_for(lambda: all(map(takes_signals, pids)))
        return {rank: pid for pid, rank in pids.items()}

    def expect_stopped(self, name, result, number, rank=None):
        """The message, the checkpoint and the file that a stopped training leaves."""
        message = self.refused(result, f"stopped by {signal.Signals(number).name} in epoch ", "; --resume auto goes on")
        if rank is not None:
            self.assertIn(f"teskd: rank {rank} on {HOST}: ", message)
        with open(self.path(name, "stopped"), encoding="utf-8") as file:
            self.assertEqual(f"teskd: {file.read()}", message + "\n")
        epoch, step = map(int, re.search(r"epoch (\d+) after step (\d+)", message).groups())
        at = self.last(name).attributes
        self.assertEqual((at["epoch"] + 1, at["step"]), (epoch, step))

    def expect_not_started(self, result, number):
        self.refused(result, f"stopped by {signal.Signals(number).name} ", "; start it again as it was")


class Stops(Signalled):
    def test_alone(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            name = signal.Signals(number).name
            with self.subTest(name):
                process = self.begin(name)
                self.wait_for_steps(name)
                process.send_signal(number)
                process.send_signal(number)  # `timeout` and terminals send it twice
                result = finish(process, 60)
                self.assertEqual(result.code, 75, str(result))
                self.expect_stopped(name, result, number)
        self.train("SIGTERM", {**LONG, "train.max_steps": self.last("SIGTERM").attributes["steps_done"] + 2},
                   resume="auto")
        self.assertFalse(os.path.exists(self.path("SIGTERM", "stopped")))
        result = self.train("SIGHUP", {**LONG, "model.width": 8}, resume="auto", code=2)
        self.assertFalse(os.path.exists(self.path("SIGHUP", "stopped")), str(result))

    def test_nohup(self):
        process = self.begin("run", prefix=["nohup", *TAKES_HANGUP])
        self.wait_for_steps("run")
        process.send_signal(signal.SIGHUP)
        self.wait_for_steps("run", self.steps("run") + 5)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        result = finish(process, 60)
        self.assertEqual(result.code, 75, str(result))

    def test_in_the_background_of_a_script(self):
        """A shell without job control lets its background commands ignore SIGINT: Ctrl-C is not meant for them."""
        process = self.begin("run", prefix=["sh", "-c", "trap '' INT; exec \"$@\"", "sh"])
        self.wait_for_steps("run")
        process.send_signal(signal.SIGINT)
        self.wait_for_steps("run", self.steps("run") + 5)
        process.send_signal(signal.SIGTERM)
        self.expect_stopped("run", finish(process, 60), signal.SIGTERM)

    def test_a_second_time(self):
        """Whoever does not want to wait for the end of the step sends it once more."""
        arguments = self.training_arguments("run", {**LONG, "run.device": "reference", "model.width": 16,
                                                    "train.batch": 500})
        process = start(*arguments)
        self.addCleanup(stop, process)
        wait_for(lambda: os.path.exists(self.path("run", "metrics.jsonl")))
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(finish(process, 5).code, -signal.SIGTERM)

    def test_one_rank_is_named(self):
        process = self.begin("run", ranks=2)
        self.wait_for_steps("run")
        os.kill(self.ranks_of(process)[1], signal.SIGUSR1)
        result = finish(process, 60)
        self.assertEqual(result.code, 75, str(result))
        self.expect_stopped("run", result, signal.SIGUSR1, rank=1)

    def test_mpirun(self):
        """Open MPI 4 hands a SIGTERM on after a second, and another second later kills: its own exit code says nothing.
        From version 5 on the ranks have a fifth of a second, and what they say is lost: SIGUSR1 is what they hear."""
        process = self.begin("run", ranks=2)
        self.wait_for_steps("run")
        process.send_signal(signal.SIGTERM if OPEN_MPI_4 else signal.SIGUSR1)
        result = finish(process, 60)
        self.assertNotEqual(result.code, 0)
        if OPEN_MPI_4:
            self.expect_stopped("run", result, signal.SIGTERM, rank=0)
        else:
            self.expect_stopped("run", result, signal.SIGUSR1)

    def test_hangup_of_other_commands(self):
        process = subprocess.Popen([*TAKES_HANGUP, TESKD, "data", "synth", "--out", self.path("images"),
                                    "--train-images", "2000000"], start_new_session=True, env=environment())
        self.addCleanup(stop, process)
        wait_for(lambda: os.path.exists(self.path("images")))
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(30), -signal.SIGHUP)

    def test_mpirun_twice(self):
        """It then ends at once, and nobody is left behind."""
        process = self.begin("run", ranks=2)
        self.wait_for_steps("run")
        pids = self.ranks_of(process).values()
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        finish(process, 60)
        wait_for(lambda: not alive(pids), 10)


class FirstMoments(Signalled):
    """From the moment on when main has begun."""

    def test_alone(self):
        early = 0
        for number in STOPPING:
            with self.subTest(number):
                name = f"run{number}"
                process = self.begin(name)
                wait_for(lambda: process.poll() is not None or takes_signals(process.pid))
                process.send_signal(number)
                result = finish(process, 60)
                self.assertEqual(result.code, 75, str(result))
                if os.path.exists(self.path(name, "last.h5")):  # this script was held up until after the first step
                    self.expect_stopped(name, result, number)
                else:
                    self.expect_not_started(result, number)
                    early += 1
        self.assertGreater(early, 0)

    def test_a_rank(self):
        process = self.begin("run", ranks=2)
        os.kill(self.ranks_of(process)[1], signal.SIGTERM)
        result = finish(process, 60)
        self.assertEqual(result.code, 75, str(result))
        self.assertIn("stopped by SIGTERM", result.err)

    def test_a_rank_dies(self):
        """Whoever is left says something, though the ranks have not found each other yet."""
        for victim in (0, 1):
            with self.subTest(victim):
                process = self.begin("run", ranks=2)
                pids = self.ranks_of(process)
                os.kill(pids[victim], signal.SIGKILL)
                try:
                    wait_for(lambda: not alive(pids.values()), 10)
                except AssertionError:  # Open MPI 5's mpirun may leave the other one waiting in MPI_Init
                    self.assertFalse(OPEN_MPI_4)
                    os.kill(pids[1 - victim], signal.SIGTERM)
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:  # mpirun itself may hang
                    stop(process)
                result = finish(process, 10)
                self.assertRegex(result.err, rf"teskd: rank {1 - victim}: stopped by SIGTERM|teskd: rank {victim} on "
                                             rf"{HOST} ended without a word|prterun noticed that process rank {victim} ")


class Alone(ProgramTest):
    """Only a training in a launch of several processes that do not find each other is refused."""

    def run_with(self, variables, *arguments):
        return finish(subprocess.Popen([TESKD, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True, start_new_session=True, env={**environment(), **variables}))

    def test_batch_script(self):
        variables = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
        self.assertEqual(self.run_with(variables, "info").code, 0)
        training = self.training_arguments("run", {"train.max_steps": 1})
        self.assertEqual(self.run_with(variables, *training).code, 0)

    def test_tasks_of_a_step(self):
        step = {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}
        training = self.training_arguments("run", {"train.max_steps": 1})
        for variables, words in ((step, "srun --mpi=pmix"),
                                 ({"OMPI_COMM_WORLD_SIZE": "2"}, "that this program is built with: ")):
            result = self.run_with(variables, *training)
            self.assertEqual(result.code, 2, str(result))
            self.refused(result, "the only rank", words, *list(variables)[1:2])
            self.assertFalse(os.path.exists(self.path("run")))
        for arguments in (["info"], ["data", "synth", "--out", self.path("data"), "--train-images", 10],
                          ["train", "--print-config"], ["bench", "--help"], [*training, "--dry-run"]):
            result = self.run_with(step, *arguments)
            self.assertEqual(result.code, 0, str(result))
        self.assertEqual(self.run_with({**step, "SLURM_STEP_NUM_TASKS": "1"}, *training).code, 0)


load_tests = enough_under_sanitizers("Stops.test_one_rank_is_named", "FirstMoments.test_alone")


if __name__ == "__main__":
    unittest.main()
