"""The command line: help, settings and their errors, dry run, graph dump, information."""

import os
import re
import subprocess
import unittest
from unittest import mock

from program import HOST, SOURCE, TESKD, ProgramTest, enough_under_sanitizers, run, settings

COMMANDS = ("train", "eval", "export", "import", "bench", "plan", "preflight", "reference", "data", "info")
COMMANDS_WITH_SETTINGS = ("train", "eval", "import", "bench", "plan", "preflight", "reference")


def declared_settings():
    text = (SOURCE / "src/base/settings.def").read_text(encoding="utf-8")
    return [f"{section}.{key}" for section, key in re.findall(r"^SETTING\((\w+), (\w+),", text, re.MULTILINE)]


class Help(ProgramTest):
    def test_no_arguments(self):
        result = self.run_code(2)
        self.assertIn("usage: teskd", result.err)
        self.assertEqual(result.out, "")

    def test_program_help_lists_the_commands(self):
        result = self.run_code(0, "--help")
        self.assertEqual(result.err, "")
        for command in COMMANDS:
            self.assertRegex(result.out, rf"(?m)^  {command} ")

    def test_command_help(self):
        names = declared_settings()
        self.assertGreater(len(names), 40)
        for command in COMMANDS:
            result = self.run_code(0, command, "--help")
            self.assertRegex(result.out, rf"^usage: teskd {command}")
            for option in ("--help", "--config FILE", "--set "):
                self.assertIn(option, result.out)
            listed = re.findall(r"^  (\w+\.\w+) = ", result.out, re.MULTILINE)
            self.assertEqual(listed, names if command in COMMANDS_WITH_SETTINGS else [], command)

    def test_help_under_ranks_comes_once(self):
        result = self.run_code(0, "train", "--help", ranks=2)
        self.assertEqual(result.out.count("usage: teskd train"), 1)


class Refusals(ProgramTest):
    def refuse(self, arguments, *words, ranks=1):
        return self.refused(self.run_code(2, *arguments, ranks=ranks), *words)

    def set(self, *assignments):
        return ["train", "--print-config"] + [part for a in assignments for part in ("--set", a)]

    def config(self, text):
        path = self.path("test.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def test_command_line(self):
        self.refuse(["tarin"], '"tarin"', "teskd --help")
        self.refuse(["train", "--epochs"], "--epochs", "teskd train --help")
        self.refuse(["info", "--resume", "auto"], "--resume")
        self.refuse(["train", "-z"], "-z")
        self.refuse(["--device", "cpu", "-lr", "3"], "-lr is not an option", "did you mean --set train.lr?")
        self.refuse(["train", "--batch-size=64"], "did you mean --set train.batch?")
        self.refuse(["train", "--fp16"], "did you mean --set run.precision=fp16?")
        self.refuse(["--gpus", "2"], "mpirun -np N")
        self.refuse(["--confg", "x.ini"], "did you mean --config?")
        self.refuse(["eval", "--resume", "x.h5"], "did you mean --checkpoint?")
        self.refuse(["export", "--output=x.onnx"], "did you mean --out?")
        self.refuse(["--dry-run=yes"], "--dry-run=yes is not an option")
        self.refuse(["eval", "--checkpoint=~no-such-user/x.h5"], "--checkpoint: '~no-such-user'", "no such user")
        self.refuse(["train", "--resume"], "--resume needs a value")
        self.refuse(["train", "extra"], '"extra"')
        self.refuse(["eval"], "--checkpoint")
        self.refuse(["reference"], "FILE.h5")
        self.refuse(["data"], "synth")
        self.refuse(["data", "synth"], "--out")
        self.refuse(["bench", "--steps", "many"], "--steps many")
        self.refuse(["bench", "--steps", "0"], "--steps")

    def test_unknown_names(self):
        self.refuse(self.set("train.epoch=3"), "train.epoch", "did you mean train.epochs?")
        self.refuse(self.set("epochs=3"), "did you mean train.epochs?")
        self.refuse(self.set("train.epochs"), "section.key=value")
        path = self.config("[train]\nepochs = 3\n\n[modle]\nnetwork = cifarresnet8\n")
        self.refuse(["train", "--config", path], f"{path}:4: ", "modle", "did you mean [model]?")
        path = self.config("; a comment\n[train]\nepochs = 3\nlearning_rate = 3\n")
        self.refuse(["--config", path], f"{path}:4: train.learning_rate: unknown setting; did you mean train.lr?")
        self.refuse(self.set("train.wd=3"), "train.wd: unknown setting; did you mean train.weight_decay?")
        self.refuse(self.set("data.num_workers=3"), "did you mean data.threads?")

    def test_nothing_in_a_file_is_dropped(self):
        path = self.config("[train] batch = 7\nepochs = 3\n")
        self.refuse(["--config", path], f"{path}:1: [train]: 'batch = 7' stands behind the section's name")
        path = self.config("[output]\ndir = runs/x # mine\n")
        self.refuse(["--config", path], f"{path}:2: output.dir", "a comment begins with ';'")
        path = self.config("[output]\ndir = 'runs\n")
        self.refuse(["--config", path], f"{path}:2: output.dir", "the quote is not closed")

    def test_values(self):
        self.refuse(self.set("train.epochs=ten"), "train.epochs", "'ten' is not a whole number", "1 to 1000000",
                    "'200'")
        self.refuse(self.set("train.epochs=0"), "train.epochs", "out of bounds")
        self.refuse(self.set("train.lr=fast"), "train.lr", "not a number")
        self.refuse(self.set("train.nesterov=perhaps"), "train.nesterov", "neither yes nor no")
        self.refuse(self.set("data.kind=mnist"), "data.kind", "cifar100", "cifar10", "synthetic")
        self.refuse(["train", "--device", "abacus"], "run.device", "cpu", "reference")
        path = self.config("[loss]\ntemperature = hot\n")
        self.refuse(["--config", path], f"{path}:2: loss.temperature", "'hot'")
        path = self.config("[train]\nbatch = 10\nbatch = 20\n")
        self.refuse(["--config", path], f"{path}:3: train.batch", "twice", "line 2")

    def test_contradictions(self):
        self.refuse(self.set("train.nesterov=yes", "train.momentum=0"), "train.nesterov", "train.momentum")
        self.refuse(self.set("train.milestones=20,10"), "train.milestones", "10 follows 20")
        self.refuse(self.set("train.min_lr=1", "train.lr=0.1"), "train.min_lr", "train.lr")
        self.refuse(self.set("train.warmup_epochs=9", "train.epochs=8"), "train.warmup_epochs")
        self.refuse(self.set("loss.student_weights=1,2"), "loss.student_weights", "student1")
        self.refuse(self.set("data.kind=cifar10", "model.classes=5"), "model.classes", "10 classes")
        self.refuse(self.set("data.drop_last=yes", "data.train_images=10"), "data.drop_last")
        self.refuse(["train", "--dry-run", *settings({"data.drop_last": "yes", "train.batch": 60000})],
                    "data.drop_last", "60000", "50000")

    def test_what_settings_make_impossible_needs_no_data(self):
        nowhere = {"data.path": self.path("nowhere"), "run.device": "cpu"}
        for changes, words in [
            ({"model.network": "resnext50", "model.width": 8}, ["model.width = 8", "do not divide into 32 groups"]),
            ({"model.blocks": "1,2"}, ["model.blocks: 2 numbers"]),
            ({"model.students": "3,3"}, ["model.students: 3 is given twice"]),
            ({"model.students": "3,0"}, ["model.students: 0 (none) stands alone"]),
            ({"train.batch": 7, "train.accumulate": 2}, ["train.batch: 7 images do not divide among 1 rank in"]),
            ({"eval.ema": "yes"}, ["eval.ema", "train.ema_decay"]),
            ({"run.reduction": "nccl"}, ["run.reduction", "run.device = cpu"]),
            ({"data.path": ""}, ["data.path: empty"]),
        ]:
            with self.subTest(changes=changes):
                self.refuse(["train", *settings({**nowhere, **changes})], *words)
        self.refuse(["bench", "--set", "model.network=resnext50", "--set", "model.width=8"], "model.width = 8")
        self.refuse(["train", *settings({**nowhere, "train.batch": 7})], "train.batch: 7 images", "2 ranks", ranks=2)

    def test_unknown_network(self):
        known = re.findall(r"^  (\S+)$", run("info").out.split("networks:\n")[1], re.MULTILINE)
        self.assertIn("cifarresnet18", known)
        self.refuse(["train", "--dry-run", "--set", "model.network=alexnet"], '"alexnet"', *known)

    def test_under_ranks_once(self):
        signed = f"teskd: rank 0 on {HOST}: "
        for arguments, word in [
            (["tarin"], "tarin"),
            (["train", "--epochs"], "--epochs"),
            (self.set("train.epoch=3"), "did you mean train.epochs?"),
            (self.set("train.epochs=0"), "out of bounds"),
            (self.set("train.min_lr=1"), "train.min_lr"),
            (["train", "--dry-run", "--set", "model.network=alexnet"], "alexnet"),
            (["train", "--dry-run", "--set", "train.batch=31"], "train.batch: 31 images do not divide among 2 ranks"),
            (["eval"], "--checkpoint"),
        ]:
            with self.subTest(arguments=arguments):
                message = self.refuse(arguments, word, ranks=2)
                self.assertTrue(message.startswith(signed), message)
                self.assertEqual(message.count("rank 0 on"), 1)

    def test_missing_config_file(self):
        result = run("train", "--config", self.path("none.ini"))
        self.assertNotEqual(result.code, 0)
        self.refused(result, self.path("none.ini"), "No such file")


class PrintConfig(ProgramTest):
    def test_reloads_to_itself(self):
        changes = {"train.lr": 0.1234567890123, "train.milestones": "3,14,15", "loss.student_weights": "1,0.5,0.1",
                   "train.batch": 96, "data.path": "/some where/else", "run.sync_bn": "yes", "data.kind": "cifar10",
                   "train.seed": 9007199254740991, "loss.feature_weight": 3e-7}
        first = self.run_code(0, "train", "--print-config", *settings(changes)).out
        path = self.path("printed.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write(first)
        self.assertEqual(self.run_code(0, "train", "--config", path, "--print-config").out, first)
        self.assertEqual(self.run_code(0, "train", "--config", path, "--print-config", ranks=2).out, first)
        for word in ("milestones = 3,14,15", "path = /some where/else", "seed = 9007199254740991", "batch = 96"):
            self.assertIn(word, first)

    def test_paths_and_quotes(self):
        path = self.path("odd.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write('[output]\ndir = "~/my runs ;1" ; a comment\n[data]\npath = \' "x"\'\n[run]\nsync_bn = TRUE\n')
        with mock.patch.dict(os.environ, HOME=self.folder):
            first = self.run_code(0, "--config=~/odd.ini", "--set", "run.plan_cache=~root", "--print-config").out
        for line in (f'dir = "{self.folder}/my runs ;1"', "path = ' \"x\"'", "plan_cache = /root", "sync_bn = yes"):
            self.assertIn(f"\n{line}\n", first)
        with open(path, "w", encoding="utf-8") as file:
            file.write(first)
        self.assertEqual(self.run_code(0, "--config", path, "--print-config").out, first)

    def test_names_every_setting_and_later_wins(self):
        path = self.path("small.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write("[train]\nbatch = 64\nepochs = 7\n")
        text = self.run_code(0, "--config", path, "--set", "train.batch=32", "--set", "train.batch=16",
                             "--print-config").out
        section, names = "", []
        for line in text.splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line:
                names.append(f"{section}.{line.split(' = ')[0]}")
        self.assertEqual(names, declared_settings())
        self.assertIn("batch = 16\n", text)
        self.assertIn("epochs = 7\n", text)

    def test_shipped_configurations(self):
        found = sorted((SOURCE / "configs").glob("*.ini"))
        self.assertTrue(found)
        for path in found:
            self.run_code(0, "train", "--config", path, "--print-config")
            self.run_code(0, "train", "--config", path, "--dry-run")


class DryRun(ProgramTest):
    def test_published_network(self):
        out = self.run_code(0, "train", "--dry-run", cwd=self.folder).out
        self.assertEqual(os.listdir(self.folder), [], "a dry run leaves nothing behind")
        total = re.search(r"backbone ([\d.]+) M weights, ([\d.]+) GMAC an image; students ([\d.]+) M", out)
        self.assertIsNotNone(total, out)
        backbone, macs, students = map(float, total.groups())
        self.assertAlmostEqual(backbone, 11.22, delta=0.005)
        self.assertAlmostEqual(macs, 0.556, delta=0.002)
        self.assertAlmostEqual(students, 25.8, delta=0.05)

        layers = re.findall(r"^  (\S+) +(\w+) +(\d+x\d+x\d+|\d+) -> (\d+x\d+x\d+|\d+) +(\d+) +([\d.]+)$", out,
                            re.MULTILINE)
        weights = {name: int(count) for name, _, _, _, count, _ in layers}
        self.assertEqual(weights["conv1"], 64 * 3 * 3 * 3)
        self.assertEqual(weights["layer4.1.conv2"], 512 * 512 * 3 * 3)
        self.assertEqual(weights["fc"], 512 * 100 + 100)
        self.assertAlmostEqual(sum(int(layer[4]) for layer in layers), 1e6 * (backbone + students), delta=1e4)

        memory = dict(re.findall(r"^  (\w+) +([\d.]+) MiB", out, re.MULTILINE))
        parts = ("inputs", "parameters", "gradients", "states", "activations", "workspace")
        self.assertAlmostEqual(float(memory["total"]), sum(float(memory[part]) for part in parts), delta=0.5)
        self.assertAlmostEqual(float(memory["parameters"]), 4e6 * (backbone + students) / 2**20, delta=1)
        self.assertIn("391 steps per epoch of 128 images (50000 training images), 200 epochs", out)

    def test_counts_the_images_where_there_are_data(self):
        changes = {"data.kind": "cifar10", "data.path": self.data, "train.batch": 30, "model.network": "cifarresnet8"}
        out = self.run_code(0, "train", "--dry-run", *settings(changes), ranks=2).out
        self.assertIn("7 steps per epoch of 30 images (200 training images)", out)
        self.assertIn("2 ranks", out)

    def test_plain_has_no_students(self):
        out = self.run_code(0, "train", "--dry-run", "--set", "model.method=plain").out
        self.assertRegex(out, r"backbone 11\.22 M weights, .*; students 0\.00 M")

    def test_graph(self):
        path = self.path("step.dot")
        self.run_code(0, "train", "--dry-run", "--set", "model.network=cifarresnet8", "--dump-graph", path)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        self.assertRegex(text, r"^digraph \w+ \{")
        self.assertTrue(text.rstrip().endswith("}"))
        self.assertGreater(text.count("->"), 100)
        self.assertIn("layer4.0.conv2", text)
        result = run("train", "--dry-run", "--set", "model.network=cifarresnet8", "--dump-graph",
                     self.path("none", "step.dot"))
        self.assertEqual(result.code, 1)
        self.refused(result, self.path("none", "step.dot"))


def half_a_core(name):
    """Makes a control group that may use half a core: its folder and the file that says so; None where it cannot."""
    for root, file, text in [("/sys/fs/cgroup", "cpu.max", "50000 100000"),
                             ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "50000")]:
        group = os.path.join(root, name)
        try:
            os.mkdir(group)
        except OSError:
            continue
        try:
            with open(os.path.join(group, file), "r+", encoding="utf-8") as limit:
                limit.write(text)
            return group, os.path.join(group, file)
        except OSError:
            os.rmdir(group)
    return None


class Info(ProgramTest):
    def test_info(self):
        out = self.run_code(0, "info").out
        self.assertRegex(out, r"^teskd \d+\.\d+\.\d+, build [0-9a-f]{20}\n")
        for line in (r"  cpu +cpu: float32", r"  reference +reference: float64", "  cifarresnet18$"):
            self.assertRegex(out, "(?m)^" + line)
        self.assertIn(f"ranks: 2, 2 on {HOST}", self.run_code(0, "info", ranks=2).out)

    def test_threads_and_the_variables_of_openmp(self):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        cores = len(os.sched_getaffinity(0))

        def info(*arguments, **variables):
            result = subprocess.run([TESKD, "info", *arguments], env={**clean, **variables}, capture_output=True,
                                    text=True, check=True)
            return re.search(r"(?m)^cores: (.*)$(?:\nOpenMP: (.*)$)?", result.stdout).groups()

        said, variables = info()
        if "quota" not in said and cores > 1:
            self.assertEqual(variables, "GOMP_SPINCOUNT=2000")
            self.assertIn(f"may use {cores} cores, and uses {cores} threads", said)
        said, variables = info(OMP_WAIT_POLICY="active", OMP_NUM_THREADS="3")
        self.assertRegex(said, "uses 3 threads$")
        self.assertEqual(set(variables.split()), {"OMP_WAIT_POLICY=active", "OMP_NUM_THREADS=3"})
        said, variables = info("--set", "run.threads=2", OMP_NUM_THREADS="3", GOMP_SPINCOUNT="7")
        self.assertRegex(said, "uses 2 threads$")
        self.assertIn("GOMP_SPINCOUNT=7", variables)
        self.assertRegex(info("--set", "run.threads=2", OMP_THREAD_LIMIT="1")[0], "uses 1 thread$")
        result = subprocess.run([TESKD, "reference", SOURCE / "tests/data/cifarresnet8.h5"], capture_output=True, text=True,
                                env={**clean, "OMP_DYNAMIC": "true", "OMP_NUM_THREADS": "2"})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        bound, variables = info(OMP_PROC_BIND="true")
        self.assertEqual((bound, variables), (info(GOMP_SPINCOUNT="2000")[0], "OMP_PROC_BIND=true"))

    def test_quota_of_a_control_group(self):
        quota = half_a_core(f"teskd-test-{os.getpid()}")
        if quota is None:
            self.skipTest("no control group can be made here")
        group, limit = quota
        try:
            command = f'echo $$ > "{group}/cgroup.procs" && exec "{TESKD}" info'
            clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
            out = subprocess.run(["sh", "-c", command], env=clean, capture_output=True, text=True, check=True).stdout
            if len(os.sched_getaffinity(0)) > 1:
                self.assertIn("OpenMP: OMP_WAIT_POLICY=passive", out)
            self.assertRegex(out, rf"may use 1 core of \d+: the CPU quota in {limit} is 0.5, and uses 1 thread\n")
        finally:
            os.rmdir(group)

    def test_settings_table_is_the_documentation(self):
        table = self.run_code(0, "info", "--settings").out
        for name in declared_settings():
            self.assertIn(f"| `{name.split('.')[1]}` |", table)
        path = SOURCE / "docs/settings.md"
        self.assertTrue(path.exists(), f"{path} is missing")
        text = path.read_text(encoding="utf-8")
        self.assertIn(table.strip(), text.strip(),
                      "docs/settings.md does not hold the table that `teskd info --settings` prints")


load_tests = enough_under_sanitizers("Help", "PrintConfig", "DryRun", "Info", "Refusals.test_command_line",
                                     "Refusals.test_contradictions", "Refusals.test_nothing_in_a_file_is_dropped",
                                     "Refusals.test_values", "Refusals.test_unknown_names")


if __name__ == "__main__":
    unittest.main()
