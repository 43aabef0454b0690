"""What the tests of export and import share: safetensors files read and written by hand, weights, images, logits."""

import json
import os
import struct
import sys

import numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "program"))

from program import ProgramTest, run, settings  # noqa: E402

TYPES = {"F16": numpy.float16, "F32": numpy.float32, "F64": numpy.float64, "I64": numpy.int64}

# One small network of each family and block, on images of 32 x 32: its settings.
FAMILIES = {
    "cifarresnet8": {"model.width": 8},
    "resnext18": {"model.width": 8},
    "resnext50": {"model.width": 16},
    "seresnet18": {"model.width": 16},
    "seresnet50": {"model.width": 8},
    "vgg16": {"model.width": 8},
    "resnet18": {"model.width": 8},
    "resnet50": {"model.width": 8},
}
for changes in FAMILIES.values():
    changes.update({"model.blocks": "1,1,1,1", "model.student_width": 16})


def split_safetensors(path):
    """(header, bytes of the tensors)"""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def read_safetensors(path):
    """(tensors by name, metadata)"""
    header, data = split_safetensors(path)
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = numpy.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def join_safetensors(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def bfloat16_bits(values):
    """The upper halves of float32 numbers, rounded to nearest even."""
    bits = numpy.asarray(values, numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(numpy.uint16)


def write_safetensors(path, tensors, dtype="F32"):
    """All float tensors as one type."""
    header, data = {}, b""
    for name, values in tensors.items():
        values = numpy.asarray(values)
        kind = "I64" if values.dtype == numpy.int64 else dtype
        raw = bfloat16_bits(values) if kind == "BF16" else values.astype(TYPES[kind])
        begin, data = len(data), data + raw.tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [begin, len(data)]}
    join_safetensors(path, header, data)


def random_weights(tensors, seed=0):
    """Values of the same names and shapes that keep activations near 1 and leave no parameter at a special value."""
    generator = numpy.random.default_rng(seed)
    made = {}
    for name, old in tensors.items():
        if name.endswith("num_batches_tracked"):
            made[name] = old
        elif name.endswith("running_var") or (old.ndim == 1 and name.endswith("weight")):
            made[name] = generator.uniform(0.5, 1.5, old.shape).astype(numpy.float32)
        elif old.ndim == 1:
            made[name] = generator.uniform(-0.3, 0.3, old.shape).astype(numpy.float32)
        else:
            fan_in = numpy.prod(old.shape[1:])
            made[name] = generator.normal(0, (2 / fan_in) ** 0.5, old.shape).astype(numpy.float32)
    return made


class ExportTest(ProgramTest):
    def train_once(self, name, network, **changes):
        """One step of the network; self.path(name, "last.h5") is left."""
        values = {"model.network": network, "train.max_steps": 1, "eval.batch": 60, **FAMILIES[network], **changes}
        self.train(name, values)
        return self.path(name, "last.h5")

    def export(self, checkpoint, kind, out, *options, code=0):
        return self.run_code(code, "export", "--checkpoint", checkpoint, "--format", kind, "--out", out, *options)

    def import_weights(self, source, out, changes, *options, code=0):
        """`code` None: whatever it may be."""
        values = {"data.kind": "cifar10", "train.batch": 20, **changes}
        arguments = ["import", "--from", source, "--out", out, *settings(values), *options]
        return run(*arguments) if code is None else self.run_code(code, *arguments)

    def random_checkpoint(self, network):
        """A checkpoint with random weights and running statistics, and their tensors."""
        changes = {"model.network": network, **FAMILIES[network]}
        self.export(self.train_once(network, network), "safetensors", self.path("first.safetensors"), "--all-heads")
        tensors = random_weights(read_safetensors(self.path("first.safetensors"))[0])
        write_safetensors(self.path("random.safetensors"), tensors)
        self.import_weights(self.path("random.safetensors"), self.path("random.h5"), changes)
        return self.path("random.h5"), tensors

    def logits(self, checkpoint):
        """The teacher's logits on the test images, and the table of the evaluation as it is printed."""
        result = self.run_code(0, "eval", "--checkpoint", checkpoint, "--predictions", self.path("logits.csv"),
                               "--logits", *settings({"data.kind": "cifar10", "data.path": self.data,
                                                      "run.threads": 1}))
        with open(self.path("logits.csv"), encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
            rows = numpy.array([[float(x) for x in line.split(",")] for line in file])
        first = columns.index("logit_0")
        self.assertEqual(rows[:, columns.index("index")].tolist(), list(range(60)))
        return rows[:, first:], result.out

    def images(self, metadata):
        """The test images as a file's metadata say they go into the network, float64 [n, 3, 32, 32]; their labels."""
        records = numpy.fromfile(os.path.join(self.data, "test_batch.bin"), numpy.uint8).reshape(-1, 1 + 3 * 32 * 32)
        mean, std = (numpy.array([float(x) for x in metadata[key].split(",")]).reshape(3, 1, 1)
                     for key in ("mean", "std"))
        return (records[:, 1:].reshape(-1, 3, 32, 32) / 255 - mean) / std, records[:, 0].astype(int)

    def check_students(self, table, logits, labels):
        """The cross-entropy that the evaluation prints of each student (four decimals) is that of these logits."""
        for head, values in logits.items():
            values = values.astype(numpy.float64)
            shifted = values - values.max(1, keepdims=True)
            loss = numpy.log(numpy.exp(shifted).sum(1)) - shifted[numpy.arange(len(labels)), labels]
            printed = [line.split() for line in table.splitlines() if line.split()[:1] == [head]]
            self.assertEqual(len(printed), 1, table)
            self.assertAlmostEqual(float(printed[0][3]), loss.mean(), delta=1e-4, msg=head)
