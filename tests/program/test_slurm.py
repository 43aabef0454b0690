"""launch/slurm under a real Slurm: jobs that are stopped ahead of their limit requeue themselves and end with the same bits.

TESKD_SLURM_LIMITS=1 tries the time limit itself, which takes minutes; else the signal comes from scancel."""

import os
import re
import unittest

import slurm

slurm.enter()

from program import SMALL, SOURCE, TESKD, Checkpoint, ProgramTest, environment, events, settings  # noqa: E402
from slurm import wait_for  # noqa: E402

ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1")
# Two nodes are joined by TCP, not by the shared memory of the other tests.
VARIABLES = {**environment(), "TESKD_HOME": str(SOURCE), "TESKD": os.path.abspath(TESKD), "OMPI_MCA_btl": "self,tcp",
             "OMPI_MCA_mpi_yield_when_idle": "1"}
LONG = {"train.epochs": 15, "eval.every": 5}

# A program that is stopped before it has saved anything, at every start.
NEVER_STARTS = f"""#!/bin/sh
case "$*" in *--print-config*) exec {os.path.abspath(TESKD)} "$@" ;; esac
echo stopped before the first step
exit 75
"""


def setUpModule():
    slurm.start()


class Batch(ProgramTest):
    """Jobs take seconds, most of them the queue's: each test submits all of its jobs, then waits."""

    def options(self, name, changes=None):
        folder = {"output.dir": self.path(name)} if name else {}
        return settings({**SMALL, "data.path": self.data, **folder, **(changes or {})})

    def submit(self, script, *words, sbatch=TWO_NODES, program=None):
        variables = {**VARIABLES, **({"TESKD": program} if program else {})}
        return slurm.submit(self.folder, "--time=30", *sbatch, SOURCE / "launch/slurm" / script, *words, env=variables)

    def train(self, script, name, changes=None, **keywords):
        return self.submit(script, "cifar100_small.ini", *self.options(name, changes), **keywords)

    def steps(self, name):
        path = self.path(name, "metrics.jsonl")
        return len(events(self.path(name), "step")) if os.path.exists(path) else 0

    def curve(self, name):
        """All that was measured, but for times."""
        return [{key: value for key, value in event.items() if key not in ("seconds", "images_per_second", "data_wait")}
                for kind in ("step", "epoch") for event in events(self.path(name), kind)]

    def assert_same(self, name, straight):
        found, expected = (Checkpoint(self.path(run, "last.h5")) for run in (name, straight))
        self.assertEqual(sorted(found.tensors), sorted(expected.tensors))
        for tensor, values in expected.tensors.items():
            self.assertEqual(found.tensors[tensor].tobytes(), values.tobytes(), tensor)
        self.assertEqual(self.curve(name), self.curve(straight))

    def expect(self, job, state, restarts=0):
        job.wait("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.assertEqual((job.field("JobState"), job.field("Restarts")), (state, str(restarts)), str(job))


class Requeue(Batch):
    def test_same_bits(self):
        straight = self.train("train.sbatch", "straight", LONG, sbatch=ONE_NODE)
        jobs = {"srun": (self.train("train.sbatch", "srun", LONG), ()),
                "mpirun": (self.train("train_mpirun.sbatch", "mpirun", LONG), ("--batch",))}
        for name, (job, whom) in jobs.items():
            wait_for(lambda name=name: self.steps(name) > 2, job)
            slurm.command("scancel", "--signal=USR2", *whom, job.number)
        self.expect(straight, "COMPLETED")
        for name, (job, _) in jobs.items():
            with self.subTest(name):
                self.expect(job, "COMPLETED", restarts=1)
                # One log for both: the end of the first, the beginning of the second.
                self.assertRegex(job.output(), r"(?s)stopped by SIGUSR2 in epoch .*going on|resum")
                self.assert_same(name, "straight")

    def test_not_for_ever(self):
        program = self.path("never_starts")
        with open(program, "w", encoding="utf-8") as file:
            file.write(NEVER_STARTS)
        os.chmod(program, 0o755)
        job = self.train("train.sbatch", "run", sbatch=ONE_NODE, program=program)
        self.expect(job, "FAILED", restarts=2)
        self.assertIn("not requeued: 3 starts in a row have left no new checkpoint", job.output())
        self.assertEqual(os.listdir(self.path("run")), [])

    def test_cancelled(self):
        """A job that its user cancels saves, and does not come back."""
        job = self.train("train.sbatch", "run", {**LONG, "train.epochs": 1000})
        wait_for(lambda: self.steps("run") > 5, job)
        slurm.command("scancel", job.number)
        self.expect(job, "CANCELLED")
        wait_for(lambda: "COMPLETING" not in slurm.command("squeue", "-h", "-o", "%T", "-j", job.number), "its end")
        self.assertTrue(os.path.exists(self.path("run", "stopped")), str(job))
        self.assertTrue(os.path.exists(self.path("run", "last.h5")))


class Array(Batch):
    def test_lines_of_a_list(self):
        runs = [(3, "teskd", self.path("a")), (4, "plain", self.path("b c"))]
        with open(self.path("runs.txt"), "w", encoding="utf-8") as file:
            file.write("# settings seed method folder\n\n")
            file.writelines(f"cifar100_small.ini {' '.join(map(str, run))}\n" for run in runs)
        array = self.submit("train.sbatch", self.path("runs.txt"), *self.options(None, {"train.epochs": 1}),
                            sbatch=(*ONE_NODE, "--array=1-3"))
        tasks = [slurm.Job(f"{array.number}_{task}", "none") for task in (1, 2, 3)]
        for task, state in zip(tasks, ("COMPLETED", "COMPLETED", "FAILED")):
            self.expect(task, state)
        for seed, method, folder in runs:
            at = Checkpoint(os.path.join(folder, "last.h5")).attributes
            self.assertEqual(at["seed"], seed)
            self.assertIn(f"method = {method}\n", at["settings"])


class Mistakes(Batch):
    def test_without_pmix(self):
        words = ["srun", "--mpi=none", "--ntasks=2", "--nodes=1", TESKD, "--config", "cifar100_small.ini",
                 *self.options("run")]
        with self.assertRaisesRegex(AssertionError, r"exit code 2(.|\n)*srun started 2 processes \(SLURM_STEP_NUM_TASKS\)"
                                                    r"(.|\n)*srun --mpi=pmix"):
            slurm.command(*words, env=VARIABLES)
        self.assertFalse(os.path.exists(self.path("run")))


if __name__ == "__main__":
    unittest.main()
