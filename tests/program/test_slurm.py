"""launch/slurm under a real Slurm: jobs that are stopped ahead of their limit requeue themselves and end with the same bits.

The signal comes from scancel. TESKD_SLURM_LIMITS=EPOCHS also tries a time limit of two minutes, with trainings of so many
epochs, which should take three minutes or more."""

import os
import unittest

import slurm

slurm.enter()

from program import SMALL, SOURCE, TESKD, Checkpoint, ProgramTest, environment, events, settings  # noqa: E402
from slurm import wait_for  # noqa: E402
from test_docs import commands  # noqa: E402

ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1")
# Two nodes are joined by TCP, not by the shared memory of the other tests.
VARIABLES = {**environment(), "TESKD_HOME": str(SOURCE), "TESKD": os.path.abspath(TESKD), "OMPI_MCA_btl": "self,tcp",
             "OMPI_MCA_mpi_yield_when_idle": "1"}
TIMES = ("seconds", "images_per_second", "data_wait", "exposed_communication")
LONG = {"train.epochs": 10, "eval.every": 5}

# A program that is stopped before it has saved anything, at every start.
NEVER_STARTS = f"""#!/bin/sh
case "$*" in *--print-config*) exec {os.path.abspath(TESKD)} "$@" ;; esac
echo stopped before the first step
exit 75
"""


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
        return [{key: value for key, value in event.items() if key not in TIMES}
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
                self.assertRegex(job.output(), r"(?s)stopped by SIGUSR2 in epoch .*\nresumed from ")
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


@unittest.skipUnless("TESKD_SLURM_LIMITS" in os.environ, "TESKD_SLURM_LIMITS is not set: limits are minutes long")
class Limits(Batch):
    def test_same_bits(self):
        changes = {"train.epochs": os.environ["TESKD_SLURM_LIMITS"], "eval.every": 50}
        straight = self.train("train.sbatch", "straight", changes, sbatch=ONE_NODE)
        jobs = {"srun": self.train("train.sbatch", "srun", changes, sbatch=(*TWO_NODES, "--time=2", "--signal=USR2@45")),
                "mpirun": self.train("train_mpirun.sbatch", "mpirun", changes,
                                     sbatch=(*TWO_NODES, "--time=2", "--signal=B:USR2@45"))}
        for job in (straight, *jobs.values()):
            wait_for(lambda job=job: job.field("JobState") == "COMPLETED", job, 1800)
            print(job)
        for name, job in jobs.items():
            self.assertGreaterEqual(int(job.field("Restarts")), 1)
            self.assert_same(name, "straight")


class Array(Batch):
    def test_lines_of_a_list(self):
        runs = [(3, "teskd", self.path("a")), (4, "plain", self.path("b c"))]
        with open(self.path("runs.txt"), "w", encoding="utf-8") as file:
            file.write("# settings file, seed, method, output folder\n\n")
            file.writelines(f"cifar100_small.ini {' '.join(map(str, run))}\n" for run in runs)
        array = self.submit("train.sbatch", self.path("runs.txt"), *self.options(None, LONG),
                            sbatch=(*ONE_NODE, "--array=1-3"))
        tasks = [slurm.Job(f"{array.number}_{task}", "none") for task in (1, 2, 3)]
        wait_for(lambda: self.steps("a") > 2, tasks[0])
        slurm.command("scancel", "--signal=USR2", tasks[0].number)
        for task, state, restarts in zip(tasks, ("COMPLETED", "COMPLETED", "FAILED"), (1, 0, 0)):
            self.expect(task, state, restarts)
        for seed, method, folder in runs:
            at = Checkpoint(os.path.join(folder, "last.h5")).attributes
            self.assertEqual((at["seed"], at["steps_done"]), (seed, 100))
            self.assertIn(f"method = {method}\n", at["settings"].decode())


class FirstLook(Batch):
    def test_debug(self):
        job = self.submit("debug.sbatch", "cifar100_small.ini", *self.options("run"), sbatch=["--cpus-per-task=1"])
        self.expect(job, "COMPLETED")
        self.assertEqual(self.steps("run"), 20)
        self.assertIn("\ndevices:\n", job.output())


class Documents(Batch):
    def test_commands_are_taken(self):
        """Slurm looks at each sbatch command as it would at a submission."""
        lines = [line for line in commands(SOURCE / "docs/clusters.md") if line.startswith("sbatch ")]
        self.assertGreater(len(lines), 4)
        for line in lines:
            self.assertIn(" to start at ", slurm.command("bash", "-c", line.replace("sbatch ", "sbatch --test-only ", 1),
                                                    cwd=SOURCE, env={**VARIABLES, "IMAGENET": "/i", "CIFAR": "/c"}))


class Mistakes(Batch):
    def test_without_pmix(self):
        words = ["srun", "--mpi=none", "--ntasks=2", "--nodes=1", TESKD, "--config", "cifar100_small.ini",
                 *self.options("run")]
        with self.assertRaisesRegex(AssertionError, r"exit code 2(.|\n)*srun started 2 processes \(SLURM_STEP_NUM_TASKS\)"
                                                    r"(.|\n)*srun --mpi=pmix"):
            slurm.command(*words, env=VARIABLES)
        self.assertFalse(os.path.exists(self.path("run")))

    def test_arguments(self):
        """What a batch script refuses before it starts anything; Slurm is not needed for that."""
        variables = {**VARIABLES, "SLURM_JOB_NAME": "teskd", "SLURM_SUBMIT_DIR": self.folder}
        array = {"SLURM_ARRAY_TASK_ID": "7"}
        for changes, words, message in (
                ({}, [], "teskd: the first argument is a settings file, or with --array a list of runs"),
                ({"TESKD": "nowhere/teskd"}, ["run.ini"], "teskd: no program nowhere/teskd: build it, or set TESKD to its path"),
                (array, [SOURCE / "launch/slurm/runs.txt"], "runs.txt has no line 7"),
                ({**array, "SLURM_ARRAY_TASK_ID": "1"}, [os.devnull], "/dev/null has no line 1"),
                ({}, ["cifar100_small.ini", "--overwrite"], "--overwrite would remove what --resume auto is to go on from")):
            for script in ("train.sbatch", "train_mpirun.sbatch"):
                with self.subTest(message, script=script), self.assertRaises(AssertionError) as refusal:
                    slurm.command("bash", SOURCE / "launch/slurm" / script, *words, env={**variables, **changes})
                self.assertIn("exit code 2", str(refusal.exception))
                self.assertIn(message, str(refusal.exception))


if __name__ == "__main__":
    unittest.main()
