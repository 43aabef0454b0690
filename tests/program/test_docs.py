"""The commands, options and settings that README.md and docs/ name: run, or at least understood by what they start.

A command runs as it is written, in a folder that looks like a checkout with a build, and CIFAR-100 in $CIFAR. Only the
work behind it is made small, by a `teskd` that adds settings."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

import numpy

from program import SOURCE, TESKD, environment
from test_usage import COMMANDS, declared_settings

DOCUMENTS = [SOURCE / "README.md", *sorted((SOURCE / "docs").glob("*.md")), SOURCE / "tests/bench/README.md"]

COMMAND = re.compile(r"(build/teskd|teskd|teskd/run\.sh|launch/\w+(?:\.sh)?|mpirun|srun|sbatch|cmake|ctest|mkdir|python3|tar|"
                     r"~/torchenv/\S+|[A-Z_]+=\S+)( |$)")

# What cannot run here, and what is looked at instead: nothing, or that its own --help takes the options.
NOT_HERE = [
    (r"launch/(quickstart|test)\.sh", "installs packages, builds, and runs this test", "--help"),
    (r"launch/bundle\.sh", "builds for GPUs", "--help"),
    (r"python3 tests/bench/published_runs", "program_plan takes its figures from it", None),
    (r"python3 tests/bench/(weak_scaling|checkpoint_stall)", "takes minutes, and measures only", None),
    (r"mpirun .*/reduce_bench", "is built with the tests, and measures only", None),
    (r"(cmake|ctest) ", "makes or tests the build that this test is of", None),
    (r"python3 -m venv|~/torchenv/", "needs PyTorch, from the network", None),
    (r"teskd/run\.sh launch/gpu_check\.sh", "needs a GPU and hours", "--dry-run"),
    (r"srun .* cp ", "needs Slurm and other machines", None),
    (r"srun .*build/teskd", "needs Slurm and other machines", "--dry-run"),
    (r"sbatch --array", "needs Slurm, and has a list of runs", None),
    (r"sbatch ", "needs Slurm, which test_slurm.py asks whether it takes the options", "--dry-run"),
    (r"launch/supervise .*build/teskd", "needs other machines", "--dry-run"),
    (r"mpirun .*(--hostfile|PE=).*build/teskd", "needs other machines, or more cores", "--dry-run"),
    (r"mpirun .*rehearse_fault", "fails on purpose", "--dry-run"),
    (r"mpirun .*imagenet_r18\.ini", "needs more cores", "--dry-run"),
    (r"build/teskd data pack --from \$KAGGLE", "needs Kaggle's files", "--help"),
    (r"(mpirun .*|[A-Z_]+=\S+ )?build/teskd bench(?! --set train.batch=32 --json)", "the same as the one that is run",
     "--help"),
]

# Makes the work small: few images, a narrow network, two steps.
SMALL_TESKD = f"""#!/bin/sh
case " $* " in
  *" --help "* | *" --settings "*) exec {shlex.quote(TESKD)} "$@" ;;
  " data synth "*) exec {shlex.quote(TESKD)} "$@" --train-images 40 --test-images 10 ;;
  " import "*) exec {shlex.quote(TESKD)} "$@" --set model.width=4 ;;
  " bench "*) exec {shlex.quote(TESKD)} "$@" --set model.network=cifarresnet8 --set model.width=4 --steps 1 ;;
  " -"* | " train "*) exec {shlex.quote(TESKD)} "$@" --set model.width=4 --set train.max_steps=2 ;;
  *) exec {shlex.quote(TESKD)} "$@" ;;
esac
"""


def blocks(path):
    """The indented blocks of a document, lines that go on joined."""
    text = path.read_text(encoding="utf-8").replace("\\\n        ", "")
    for block in re.findall(r"(?:(?<=\n\n)|\A)(?:    \S.*\n(?:\n(?=    \S))?)+", text):
        yield [line.strip() for line in block.splitlines() if line.strip()]


def commands(path):
    return [line for block in blocks(path) for line in block if COMMAND.match(line)]


def spans(path):
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", path.read_text(encoding="utf-8"))


class Documents(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="teskd-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def lay_out(self, name):
        """A checkout, its build, a bundle's archive and the data."""
        root = self.folder / name
        (root / "build").mkdir(parents=True)
        (root / "docs").mkdir()
        for part in ("configs", "launch", "tests"):
            (root / part).symlink_to(SOURCE / part)
        shutil.copy(SOURCE / "configs/quickstart.ini", root / "run.ini")
        program = root / "build/teskd"
        program.write_text(SMALL_TESKD)
        program.chmod(0o755)
        self.make_bundle(root)
        subprocess.run([TESKD, "data", "synth", "--folders", "--out", root / "home/imagenet", "--train-images", "20",
                        "--test-images", "10"], check=True, stdout=subprocess.DEVNULL)
        data = root / "home/cifar"
        data.mkdir()
        for file, images in (("train.bin", 40), ("test.bin", 10)):
            rows = numpy.random.default_rng(0).integers(0, 256, (images, 2 + 3072), dtype=numpy.uint8)
            rows[:, 0], rows[:, 1] = 0, numpy.arange(images) % 100
            rows.tofile(data / file)
        return root

    def make_bundle(self, root):
        made = root / "teskd"
        for part in ("bin", "launch"):
            (made / part).mkdir(parents=True)
        for script in ("gpu_check.sh", "nvidia_libraries.sh"):
            shutil.copy(SOURCE / "launch" / script, made / "launch")
        shutil.copy(SOURCE / "launch/bundled_run.sh", made / "run.sh")
        (made / "bin/teskd").symlink_to(TESKD)
        subprocess.run(["tar", "-cJf", "teskd.tar.xz", "teskd"], cwd=root, check=True)
        shutil.rmtree(made)

    def run_line(self, root, line, variables):
        values = {**environment(), **variables, "HOME": str(root / "home"),
                  "PATH": f"{root / 'build'}:{os.environ['PATH']}", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                  "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
        result = subprocess.run(["bash", "-c", line], cwd=root, env=values, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(result.returncode, 0, f"{line}\n{result.stdout[-2000:]}")

    def run_document(self, root, path, done):
        variables = {"CIFAR": str(root / "home/cifar"), "IMAGENET": str(root / "home/imagenet")}
        for line in commands(path):
            assigned = re.fullmatch(r"([A-Z]+)=(\S+)", line)
            if assigned:
                variables[assigned[1]] = assigned[2].replace("$HOME", str(root / "home"))
                continue
            kind = next((row for row in NOT_HERE if re.match(row[0], line)), None)
            if line in done or (kind and kind[2] is None):
                continue
            done.add(line)
            if kind:
                line = re.sub(r"^(mpirun|srun|launch/supervise) .*?(?=build/teskd)", "", line).split(" #")[0] + f" {kind[2]}"
                line = re.sub(r"^sbatch .*?\.sbatch ", "build/teskd --config ", line)
            with self.subTest(document=path.name, command=line):
                self.run_line(root, line, variables)

    def test_commands(self):
        root, done = self.lay_out("checkout"), set()
        for path in DOCUMENTS:
            self.run_document(root, path, done)
            for run in (root / "runs").iterdir():  # README.md's quickstart is what the other documents begin with
                if run.name.startswith("cifar100"):
                    shutil.rmtree(run)
        for kind in NOT_HERE:
            self.assertTrue(any(re.match(kind[0], line) for path in DOCUMENTS for line in commands(path)),
                            f"no document has a command such as {kind[0]}")

    def test_no_command_is_overlooked(self):
        for path in DOCUMENTS:
            for block in blocks(path):
                for line in block:
                    self.assertTrue(COMMAND.match(line) or not re.search(r" --[a-z]|teskd ", line), f"{path}: {line}")

    def test_commands_within_sentences(self):
        root = self.lay_out("sentences")
        for path in DOCUMENTS:
            for span in spans(path):
                if re.match(r"(build/teskd|launch/\w+\.sh) ?[a-z-]", span) and not re.search("[A-Z…]", span):
                    with self.subTest(document=path.name, command=span):
                        self.run_line(root, span.split(" >")[0] + " --help", {})

    def test_options_and_settings_exist(self):
        texts = [subprocess.run([TESKD, command, "--help"], text=True, capture_output=True, check=True).stdout
                 for command in COMMANDS]
        scripts = [*SOURCE.glob("launch/*.sh"), SOURCE / "launch/supervise", *SOURCE.glob("launch/slurm/*.sbatch"),
                   *SOURCE.glob("tests/bench/*.py")]
        texts += [path.read_text(encoding="utf-8") for path in scripts]
        of_others = {"--bind-to", "--oversubscribe", "--mpi", "--shm-size", "--signal", "--cpus", "--mca", "--no-kill", "--batch",
                     "--prefix"}
        known, settings = set(re.findall(r"--[a-z][a-z-]*", "".join(texts))), set(declared_settings())
        sections = "|".join({name.split(".")[0] for name in settings})
        for path in DOCUMENTS:
            text = path.read_text(encoding="utf-8")
            options = {word for span in spans(path) for word in re.findall(r"(?:^|(?<= ))--[a-z][a-z-]*", span)}
            self.assertLessEqual(options, known | of_others, path)
            named = set(re.findall(rf"(?:`|--set )((?:{sections})\.[a-z]\w+)(?=[`= ])", text))
            files = {name for name in named if re.search(r"\.(bin|c|h|h5|ini|sbatch|sh|tar)$", name)}
            self.assertLessEqual(named - files, settings, path)


if __name__ == "__main__":
    unittest.main()
