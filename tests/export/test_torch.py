"""Export and import against the programs they are for: onnxruntime, safetensors, torchvision's ResNets and the PyTorch
network of tests/torch. Exit code 77 where one of them is missing.
"""

import os
import sys
import unittest

import numpy

try:
    import onnxruntime
    import safetensors.torch
    import torch
    import torchvision
except ImportError as error:
    print(f"skipped: {sys.executable} has not all of onnxruntime, safetensors, torch, torchvision ({error})")
    sys.exit(77)

from exchange import FAMILIES, ExportTest, random_weights
from program import relative_l2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "torch"))
import teskd_torch  # noqa: E402

BOUND = 1e-5


def random_state(network):
    """Random weights in the form of a state_dict."""
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return {name: torch.from_numpy(numpy.array(values)) for name, values in random_weights(state).items()}


class Others(ExportTest):
    def report(self, what, result, expected):
        error = relative_l2(numpy.asarray(result, numpy.float64), numpy.asarray(expected, numpy.float64))
        print(f"{what}: {error:.1e}")
        self.assertLess(error, BOUND)

    def run_onnx(self, path, images):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [out.name for out in session.get_outputs()]
        return dict(zip(names, session.run(names, {"input": images.astype(numpy.float32)})))

    def compare_onnx(self, network):
        checkpoint, _ = self.random_checkpoint(network)
        expected, table = self.logits(checkpoint)
        for options in ([], ["--fold-bn", "--all-heads"]):
            self.export(checkpoint, "onnx", self.path("network.onnx"), *options)
            session = onnxruntime.InferenceSession(self.path("network.onnx"), providers=["CPUExecutionProvider"])
            images, labels = self.images(session.get_modelmeta().custom_metadata_map)
            outputs = self.run_onnx(self.path("network.onnx"), images)
            self.report(f"{network}, onnxruntime {' '.join(options)}", outputs.pop("logits"), expected)
            self.check_students(table, {name[len("logits_"):]: logits for name, logits in outputs.items()}, labels)

    def compare_torchvision(self, name):
        """torchvision's weights into a checkpoint, and back into torchvision and ONNX."""
        network = getattr(torchvision.models, name)(num_classes=10).eval()
        network.load_state_dict(random_state(network))
        safetensors.torch.save_file(network.state_dict(), self.path("torchvision.safetensors"))
        self.import_weights(self.path("torchvision.safetensors"), self.path("network.h5"),
                            {"model.network": name, "model.student_width": 16, "data.path": self.data},
                            "--teacher-only")
        logits, _ = self.logits(self.path("network.h5"))
        self.export(self.path("network.h5"), "safetensors", self.path("back.safetensors"))
        with safetensors.safe_open(self.path("back.safetensors"), "pt") as file:
            images, _ = self.images(file.metadata())
        with torch.no_grad():
            expected = network(torch.from_numpy(images).float())
            self.report(f"{name}, torchvision, imported", logits, expected)
            back = getattr(torchvision.models, name)(num_classes=10).eval()
            back.load_state_dict(safetensors.torch.load_file(self.path("back.safetensors")), strict=True)
            self.assertTrue(torch.equal(back(torch.from_numpy(images).float()), expected))
        self.export(self.path("network.h5"), "onnx", self.path("network.onnx"), "--fold-bn")
        self.report(f"{name}, onnxruntime", self.run_onnx(self.path("network.onnx"), images)["logits"], expected)

    def test_resnet18(self):
        self.compare_torchvision("resnet18")

    def test_resnet34(self):
        self.compare_torchvision("resnet34")

    def test_resnet50(self):
        self.compare_torchvision("resnet50")

    def test_large_images(self):
        """224 x 224: what ONNX makes of it is what torchvision makes of it."""
        network = torchvision.models.resnet18(num_classes=7).eval()
        network.load_state_dict(random_state(network))
        safetensors.torch.save_file(network.state_dict(), self.path("large.safetensors"))
        self.import_weights(self.path("large.safetensors"), self.path("large.h5"),
                            {"model.network": "resnet18", "model.method": "plain", "model.classes": 7,
                             "data.kind": "synthetic", "train.batch": 2})
        self.export(self.path("large.h5"), "onnx", self.path("large.onnx"))
        images = numpy.random.default_rng(0).normal(0, 1, (2, 3, 224, 224)).astype(numpy.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images))
        self.report("resnet18 at 224, onnxruntime against torchvision",
                    self.run_onnx(self.path("large.onnx"), images)["logits"], expected)

    def test_all_heads_in_pytorch(self):
        """Every tensor finds its place in the PyTorch network, students included, and the four heads agree."""
        network = teskd_torch.Network("cifarresnet8", 10, base_width=8, student_width=16).eval()
        network.load_state_dict(random_state(network))
        safetensors.torch.save_file(network.state_dict(), self.path("torch.safetensors"))
        self.import_weights(self.path("torch.safetensors"), self.path("network.h5"),
                            {"model.network": "cifarresnet8", **FAMILIES["cifarresnet8"]})
        logits, _ = self.logits(self.path("network.h5"))
        self.export(self.path("network.h5"), "safetensors", self.path("back.safetensors"), "--all-heads")
        back = safetensors.torch.load_file(self.path("back.safetensors"))
        network.load_state_dict(back, strict=True)
        with safetensors.safe_open(self.path("back.safetensors"), "pt") as file:
            images, _ = self.images(file.metadata())
        with torch.no_grad():
            heads, _ = network(torch.from_numpy(images).float())
        self.report("cifarresnet8, PyTorch", logits, heads[0])
        self.export(self.path("network.h5"), "onnx", self.path("network.onnx"), "--all-heads")
        outputs = self.run_onnx(self.path("network.onnx"), images)
        for head, name in zip(heads, ("logits", "logits_student3", "logits_student2", "logits_student1")):
            self.report(f"cifarresnet8, {name}, onnxruntime against PyTorch", outputs[name], head)


def add_test(network):
    setattr(Others, f"test_onnx_{network}", lambda self: self.compare_onnx(network))


for family in FAMILIES:
    add_test(family)

if __name__ == "__main__":
    unittest.main()
