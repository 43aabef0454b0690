"""Faults on purpose (run.rehearse_fault), kind by phase by rank: the right rank and phase are named, nobody hangs, and
what is resumed ends with the weights of an undisturbed run. A few cases; TESKD_FAULTS=all takes the whole matrix, some
twenty minutes, and prints a table."""

import itertools
import os
import pathlib
import re
import subprocess
import unittest

from program import TESKD, ProgramTest, command_line, environment, finish, start, stop

RANKS, STEPS, EPOCHS = 3, 8, 2
RUN = {"data.kind": "synthetic", "data.train_images": 24 * STEPS, "data.test_images": 48, "train.batch": 24,
       "train.epochs": EPOCHS, "output.checkpoint_every": 3, "log.every": 2, "dist.timeout_start": 12,
       "dist.timeout_step": 6, "dist.timeout_checkpoint": 6, "dist.timeout_silence": 6}
PHASES = ["start", "data", "compute", "all_reduce", "checkpoint", "evaluate"]
# What is said of a rank that does so. A stopped rank is silent, and at the same time gets no further.
SAID = {"kill": r"ended without a word", "crash": r"ended without a word", "abort": r"ended without a word",
        "hang": r"hangs: no progress", "stop": r"hangs: no progress|has not been heard of"}
LIMIT = 150  # seconds for a whole run on a loaded machine
FEW = [("kill", "all_reduce", 1), ("hang", "data", 2), ("stop", "evaluate", 0), ("crash", "checkpoint", 0)]
ALL = list(itertools.product(SAID, PHASES, range(RANKS)))


def memory_group():
    """A new control group that limits memory, and the name of its limit; None where none can be made."""
    for parent, limit in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]:
        group = os.path.join(parent, f"teskd_test_{os.getpid()}")
        try:
            os.mkdir(group)
        except OSError:
            continue
        if os.access(os.path.join(group, limit), os.W_OK):
            return group, limit
        os.rmdir(group)
    return None, None


class Faults(ProgramTest):
    def fault(self, name, kind, phase, rank, changes=None):
        """A run with a fault; ended, whatever came of it."""
        values = {**RUN, "run.rehearse_fault": kind, "run.rehearse_phase": phase, "run.rehearse_rank": rank,
                  "run.rehearse_step": 5, **(changes or {})}
        process = start(*self.training_arguments(name, values), ranks=RANKS)
        self.addCleanup(stop, process)
        return finish(process, LIMIT)

    def undisturbed(self):
        self.train("straight", RUN, ranks=RANKS)
        return self.last("straight")

    def resumes(self, name, expected):
        self.train(name, RUN, resume="auto", ranks=RANKS)
        found = self.last(name)
        return all(found.tensors[tensor].tobytes() == values.tobytes() for tensor, values in expected.tensors.items())

    def named(self, result, kind, phase, rank):
        """Whether the one message names the rank, what happened to it, and the phase."""
        said = self.without_warnings(result).messages()
        pattern = rf"^teskd: rank {rank} on \S+ ({SAID[kind]}).*\({phase}\)"
        return len(said) == 1 and re.match(pattern, said[0]) is not None

    def test_who_fails_is_named_and_the_run_goes_on(self):
        wanted = os.environ.get("TESKD_FAULTS") == "all"
        expected, wrong = self.undisturbed(), []
        for kind, phase, rank in ALL if wanted else FEW:
            name = f"{kind}-{phase}-{rank}"
            result = self.fault(name, kind, phase, rank)
            right = self.named(result, kind, phase, rank)
            self.assertNotEqual(result.code, 0, str(result))
            equal = self.resumes(name, expected)
            self.assertTrue(equal, f"{name}: other weights after the resume")
            if wanted:
                print(f"| {kind} | {phase} | {rank} | {'named' if right else 'NOT named'} | {result.seconds:.1f} s |",
                      flush=True)
            if not right:
                wrong.append(f"{name}: {result}")
        most = len(ALL) // 20 if wanted else 0
        self.assertLessEqual(len(wrong), most, "\n".join(wrong))

    def test_a_full_disk_is_told_and_leaves_the_checkpoint_before(self):
        result = self.fault("full", "full_disk", "checkpoint", 0, {"run.rehearse_step": 5})
        self.assertEqual(result.code, 1, str(result))
        self.refused(self.without_warnings(result), "rank 0", "File too large")
        self.assertTrue(self.resumes("full", self.undisturbed()))

    def without_warnings(self, result):
        result.err = "\n".join(line for line in result.err.splitlines() if not line.startswith("teskd: warning: "))
        return result

    def test_a_slow_rank_is_named_with_its_reason(self):
        changes = {"run.rehearse_step": 1, "train.max_steps": 100, "dist.slow_share": 0.1, "data.train_images": 24 * 120,
                   "log.every": 8, "output.checkpoint_every": 0, "model.width": 12}
        for phase, reason in [("data", "because of its data"), ("compute", "because of its computing")]:
            result = self.fault(f"slow-{phase}", "slow", phase, 2, changes)
            self.assertEqual(result.code, 0, str(result))
            self.assertRegex(result.err, rf"rank 2 on \S+ holds the others up: .*{reason}")

    def test_a_weight_that_is_no_number_ends_the_run(self):
        result = self.fault("nan", "nan", "compute", 1)
        self.assertEqual(result.code, 1, str(result))
        self.refused(self.without_warnings(result), "finite", "epoch 1")
        self.assertTrue(self.resumes("nan", self.undisturbed()))

    def test_a_rank_without_memory_is_told_from_other_kills(self):
        group, limit = memory_group()
        if not group:
            self.skipTest("no memory control group can be made here")
        self.addCleanup(os.rmdir, group)
        pathlib.Path(group, limit).write_text("30M")
        inside = f'[ "$OMPI_COMM_WORLD_RANK" != 1 ] || echo $$ > {group}/cgroup.procs; exec "$@"'
        values = {**RUN, "model.width": 16, "train.batch": 96}
        command = command_line(self.training_arguments("memory", values), RANKS)
        at = command.index(TESKD)
        command[at:at] = ["sh", "-c", inside, "sh"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=environment(), start_new_session=True)
        self.addCleanup(stop, process)
        result = finish(process, LIMIT)
        self.assertNotEqual(result.code, 0, str(result))
        self.assertRegex(result.err, r"rank 1 on \S+ ended without a word")
        self.assertRegex(result.err, r"the kernel has just ended a process for want of memory: rank 1 ")

    def test_a_resumed_run_has_no_fault(self):
        self.fault("once", "kill", "compute", 1)
        values = {**RUN, "run.rehearse_fault": "kill", "run.rehearse_rank": 1, "run.rehearse_step": 5}
        self.train("once", values, resume="auto", ranks=RANKS)


if __name__ == "__main__":
    unittest.main()
