"""Runs the program under test (environment variable TESKD) and reads what it leaves behind."""

import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import h5py
import numpy

TESKD = os.environ.get("TESKD", "teskd")
SOURCE = pathlib.Path(__file__).resolve().parents[2]
MPIRUN = [os.environ.get("MPIEXEC", "mpirun"), "--oversubscribe", "--bind-to", "none"]
HOST = os.uname().nodename

# A step takes milliseconds: what is tested is the program around it.
SMALL = {
    "model.network": "cifarresnet8",
    "model.width": 4,
    "data.kind": "cifar10",
    "train.batch": 20,
    "train.lr": 0.05,
    "train.epochs": 2,
    "run.threads": 1,
    "log.every": 1,
}


class Result:
    """Exit code, stdout and stderr of an ended run, and the seconds it took."""

    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    def messages(self):
        """The program's own lines on stderr; mpirun adds others."""
        return [line for line in self.err.splitlines() if line.startswith("teskd: ")]

    def __str__(self):
        return f"exit code {self.code} after {self.seconds:.1f} s\n{self.out[-4000:]}\n{self.err[-4000:]}"


def enough_under_sanitizers(*names):
    """A script's load_tests: sanitizers, which make a training ten times as long, get these classes and tests alone.
    They hold the memory and the arithmetic of each path; what is right and wrong is the other build's matter."""
    def load_tests(loader, tests, pattern):
        script = sys.modules["__main__"]
        return loader.loadTestsFromNames(names, script) if os.environ.get("TESKD_SANITIZED") else tests
    return load_tests


def environment():
    # What the program would set itself, by starting once more.
    return {"GOMP_SPINCOUNT": "2000", **os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def command_line(arguments, ranks):
    launcher = MPIRUN + ["-np", str(ranks)] if ranks > 1 else []
    return launcher + [TESKD] + [str(a) for a in arguments]


def start(*arguments, ranks=1, **keywords):
    """A running program, in a session of its own so that stop() finds all of it."""
    return subprocess.Popen(command_line(arguments, ranks), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment(), start_new_session=True, **keywords)


def stop(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def finish(process, timeout=300):
    begin = time.monotonic()
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        stop(process)
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout} s: {process.args}\n{out[-2000:]}\n{err[-2000:]}") from None
    return Result(process.returncode, out, err, time.monotonic() - begin)


def run(*arguments, ranks=1, timeout=300, **keywords):
    return finish(start(*arguments, ranks=ranks, **keywords), timeout)


def settings(values):
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def xxh3(content):
    checksum = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
    checksum.restype, checksum.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    return checksum(content, len(content))


def first_block(rest):
    """What stands before the `rest` of a checkpoint."""
    block = bytearray(512)
    block[:16] = b"teskd-checkpoint"
    block[16:24] = (512 + len(rest)).to_bytes(8, "little")
    block[24:32] = xxh3(bytes(block[:24] + block[32:]) + rest).to_bytes(8, "little")  # of all but itself
    return bytes(block)


def is_sealed(path):
    with open(path, "rb") as file:
        content = file.read()
    return content[:512] == first_block(content[512:])


def reseal(path):
    """Makes an HDF5 file that h5py wrote or changed a checkpoint again: the first block is written anew."""
    with open(path, "rb") as file:
        content = file.read()
    rest = content[512:] if content.startswith(b"teskd-checkpoint") else content
    with open(path, "wb") as file:
        file.write(first_block(rest) + rest)


class Checkpoint:
    """All datasets and attributes of a checkpoint, by name."""

    def __init__(self, path):
        self.tensors = {}
        with h5py.File(path, "r") as file:
            self.attributes = {key: file.attrs[key] for key in file.attrs}
            file.visititems(self._take)

    def _take(self, name, item):
        if isinstance(item, h5py.Dataset):
            self.tensors[name] = item[()]

    def weights(self):
        """Parameters and running statistics, as one vector."""
        return numpy.concatenate([self.tensors[name].astype(numpy.float64).ravel()
                                  for name in sorted(self.tensors) if name.startswith("weights/")])


def relative_l2(a, b):
    return numpy.linalg.norm(a - b) / numpy.linalg.norm(b)


def events(folder, kind):
    """The lines of metrics.jsonl of one kind ("step" or "epoch")."""
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        return [event for event in map(json.loads, file) if event["event"] == kind]


class ProgramTest(unittest.TestCase):
    """A test with synthetic images in self.data (200 for training, 60 for the test) and a scratch folder of its own."""

    @classmethod
    def setUpClass(cls):
        cls.class_folder = tempfile.mkdtemp(prefix="teskd-test-")
        cls.data = os.path.join(cls.class_folder, "data")
        made = run("data", "synth", "--out", cls.data, "--train-images", 200, "--test-images", 60)
        if made.code != 0:
            raise AssertionError(f"no data: {made}")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.class_folder)

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.class_folder)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def run_code(self, code, *arguments, **keywords):
        """Runs and expects that exit code."""
        result = run(*arguments, **keywords)
        self.assertEqual(result.code, code, f"{arguments}: {result}")
        return result

    def training_arguments(self, name, changes=None, resume=None):
        values = {**SMALL, "data.path": self.data, "output.dir": self.path(name), **(changes or {})}
        return ["train", *settings(values), *(["--resume", resume] if resume else [])]

    def train(self, name, changes=None, resume=None, ranks=1, code=0):
        """Trains with the small settings and `changes` into self.path(name)."""
        return self.run_code(code, *self.training_arguments(name, changes, resume), ranks=ranks)

    def last(self, name):
        return Checkpoint(self.path(name, "last.h5"))

    def refused(self, result, *words):
        """One message, with all the words in it."""
        messages = result.messages()
        self.assertEqual(len(messages), 1, str(result))
        for word in words:
            self.assertIn(word, messages[0])
        return messages[0]
