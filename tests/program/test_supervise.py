"""launch/supervise on this host: a failed training goes on, a stopped one ends, a launcher that hangs is ended, and what
cannot go on is given up. (On several hosts: tests/cluster.)"""

import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from program import HOST, MPIRUN, SOURCE, TESKD, ProgramTest, environment, finish, stop
from test_killed_rank import children

STEPS = 60
RUN = {"data.kind": "synthetic", "data.train_images": 20 * STEPS, "data.test_images": 40, "train.epochs": 1,
       "output.checkpoint_every": 5}


def said(result):
    """The lines of the script's own, without the time."""
    return re.findall(r"^supervise \S+ \S+: (.*)", result.out, re.M)


class Supervised(ProgramTest):
    def begin(self, options, name="run", changes=None, variables=None):
        launcher = [] if "--mpirun" in options else ["--mpirun", " ".join(MPIRUN)]
        command = [SOURCE / "launch/supervise", *launcher, *options, TESKD,
                   *self.training_arguments(name, {**RUN, **(changes or {})})]
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**environment(), **(variables or {})}, start_new_session=True)
        self.addCleanup(stop, process)
        return process

    def supervise(self, code, options, *arguments, **keywords):
        result = finish(self.begin(options, *arguments, **keywords), 120)
        self.assertEqual(result.code, code, str(result))
        return result

    def wait_for_steps(self, process, count):
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            try:
                if pathlib.Path(self.path("run", "metrics.jsonl")).read_text().count('"step"') >= count:
                    return
            except OSError:
                pass
            time.sleep(0.01)
        self.fail(f"no {count} steps: {finish(process, 1)}")

    def script(self, name, text):
        path = pathlib.Path(self.path(name))
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def expect_the_undisturbed(self):
        self.train("straight", RUN, ranks=2)
        found, expected = self.last("run"), self.last("straight")
        for tensor, values in expected.tensors.items():
            self.assertEqual(found.tensors[tensor].tobytes(), values.tobytes(), tensor)


class GoesOn(Supervised):
    def test_after_a_killed_rank(self):
        """Three ranks have room, and two can share 20 images; one host is not there."""
        process = self.begin(["--hosts", f"{HOST}:3,nowhere", "--agent", "false"])
        self.wait_for_steps(process, 12)
        os.kill(next(pid for pid, rank in children(process.pid).items() if rank == 1), signal.SIGKILL)
        result = finish(process, 120)
        self.assertEqual(result.code, 0, str(result))
        lines = said(result)
        self.assertEqual(lines[:2] + lines[3:5], ["no answer from nowhere", f"2 ranks on {HOST}"] * 2)
        self.assertRegex(lines[2], rf"^rank 1 on {HOST} .*: noticed \S+ s after the last step, mpirun ended \S+ s later$")
        self.assertRegex(lines[5], r"^restarted \S+ s after the last step, with [0-5] steps to be done again$")
        self.assertRegex(lines[6], r"^past step \d+ again: the failure cost \S+ s in all$")
        self.assertEqual(lines[7:], ["finished"])
        self.assertEqual(pathlib.Path(self.path("run", "supervise.log")).read_text(), result.out)
        self.expect_the_undisturbed()

    def test_after_a_rehearsed_fault(self):
        """It happens once."""
        result = self.supervise(0, ["--hosts", f"{HOST}:2"], changes={
            "run.rehearse_fault": "kill", "run.rehearse_rank": 1, "run.rehearse_step": 8, "train.max_steps": 12})
        self.assertRegex(said(result)[1], rf"^rank 1 on {HOST} ended without a word .* step 8 ")
        self.assertEqual(self.last("run").attributes["steps_done"], 12)

    def test_after_a_signal(self):
        """SIGTERM for this script is SIGUSR1 for the ranks, which have time then."""
        process = self.begin(["--hosts", f"{HOST}:2"])
        self.wait_for_steps(process, 3)
        process.send_signal(signal.SIGTERM)
        result = finish(process, 60)
        self.assertEqual((result.code, said(result)[-1]), (75, "stopped"), str(result))
        self.assertIn("stopped by SIGUSR1 in epoch 1 after step", result.out)
        self.assertLess(self.last("run").attributes["steps_done"], STEPS)
        self.supervise(0, ["--hosts", f"{HOST}:2"])
        self.assertEqual(self.last("run").attributes["steps_done"], STEPS)


class Ends(Supervised):
    def test_gives_up(self):
        """What fails at the same step each time."""
        result = self.supervise(1, ["--hosts", f"{HOST}:2", "--tries", "2"], changes={"train.lr": 1000, "model.width": 2})
        self.assertIn("no longer finite", result.out)
        self.assertEqual(said(result)[-1], "given up after 2 failures without a new checkpoint")

    def test_training_ends_with_the_script(self):
        process = self.begin(["--hosts", f"{HOST}:2"], changes={"train.epochs": 1000, "eval.every": 0})
        self.wait_for_steps(process, 3)
        pids = children(process.pid)
        process.send_signal(signal.SIGKILL)
        end = time.monotonic() + 20
        while any(os.path.exists(f"/proc/{pid}/exe") for pid in pids) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual([pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")], [])

    def test_launcher_that_hangs(self):
        hangs = self.script("hangs", "echo 'teskd: warning: none'; echo 'teskd: rank 1 on b is gone'; exec sleep 1000")
        result = self.supervise(1, ["--mpirun", hangs, "--tries", "1"])
        self.assertIn("mpirun is killed: it is still there 5 s after the failure", said(result))
        self.assertIn("rank 1 on b is gone: noticed ", result.out)
        mute = self.script("mute", "exec sleep 1000")
        result = self.supervise(1, ["--mpirun", mute, "--tries", "1", "--start-limit", "1"])
        self.assertIn("mpirun is killed: nothing was printed in 1 s", said(result))

    def test_too_few_hosts(self):
        result = self.supervise(1, ["--hosts", f"{HOST},nowhere", "--agent", "false", "--min-hosts", "2", "--tries", "2"])
        self.assertIn("1 of 2 hosts answer, expected 2 or more", said(result))


class Launches(Supervised):
    def test_hosts_of_a_slurm_job(self):
        """Its launcher starts commands with srun; one host does not answer."""
        self.script("scontrol", 'test "$*" = "show hostnames n[1-4]" && printf "n1\\nn2\\nn3\\nn4\\n"')
        self.script("srun", 'test "$5" != n2 && exec sh -c "$8"')
        launcher = self.script("launcher", 'echo "launched: $*"')
        result = self.supervise(0, ["--mpirun", f"{launcher} --bind-to none"], variables={
            "PATH": f"{self.folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-4]",
            "SLURM_TASKS_PER_NODE": "2(x3),1"})
        self.assertRegex(result.out, r"launched: --bind-to none -x TESKD_SUPERVISE --host n1:2,n3:2,n4:1 -np 5 \S*teskd "
                                     r"train --set .* --resume auto")

    def test_hostfile(self):
        pathlib.Path(self.path("hosts")).write_text(f"# two\n{HOST} slots=4 max_slots=8\n\nlocalhost:1\n")
        launcher = self.script("launcher", 'echo "launched: $*"')
        result = self.supervise(0, ["--mpirun", launcher, "--hostfile", self.path("hosts")])
        self.assertIn(f"--host {HOST}:4,localhost:1 -np 5 ", result.out)

    def test_wrong_usage(self):
        for options, words in ((["--hosts", "a:b"], '"a:b": expected a host'), (["--hosts", "a,a"], "named twice"),
                               (["--hostfile", "/nowhere"], "/nowhere: No such file"), (["--nothing"], "--nothing"),
                               (["--min-hosts", "0"], "--min-hosts: expected"), (["--mpirun", "nowhere"], "nowhere")):
            self.assertIn(words, self.supervise(2, options).err)
        result = self.supervise(2, [], changes={"train.batch": "many"})
        self.assertIn("teskd: ", result.err)
        self.assertFalse(os.path.exists(self.path("run")))
        result = self.supervise(2, ["--hosts", f"{HOST}:2"], changes={"data.kind": "cifar10", "data.path": ""})
        self.assertEqual(said(result)[-1], "wrong usage or settings", str(result))


if __name__ == "__main__":
    unittest.main()
