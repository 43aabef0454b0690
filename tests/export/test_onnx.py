"""ONNX files: valid for ONNX's own checker, and the same logits when run by other code. Exit code 77 without python3-onnx.
"""

import os
import sys
import unittest

import numpy

try:
    import onnx
except ImportError as error:
    print(f"skipped: no ONNX for {sys.executable} ({error})")
    sys.exit(77)

from exchange import FAMILIES, ExportTest
from onnx_numpy import evaluate
from program import enough_under_sanitizers, relative_l2


class Onnx(ExportTest):
    def load(self, checkpoint, *options):
        path = self.path("network.onnx")
        self.export(checkpoint, "onnx", path, *options)
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path)
        return model, {entry.key: entry.value for entry in model.metadata_props}

    def compare(self, network):
        checkpoint, _ = self.random_checkpoint(network)
        expected, table = self.logits(checkpoint)
        for options in (["--all-heads"], ["--fold-bn"], ["--fold-bn", "--all-heads"], []):
            model, metadata = self.load(checkpoint, *options)
            images, labels = self.images(metadata)
            outputs = evaluate(model, images)
            error = relative_l2(outputs.pop("logits"), expected)
            print(f"{network} {' '.join(options)}: {len(model.graph.node)} nodes, "
                  f"logits of numpy in float64 against teskd's in float32: {error:.1e}")
            self.assertLess(error, 1e-5)
            self.assertEqual(len(outputs), 3 if "--all-heads" in options else 0)
            self.check_students(table, {name[len("logits_"):]: logits for name, logits in outputs.items()}, labels)
            kinds = {node.op_type for node in model.graph.node}
            self.assertEqual("BatchNormalization" in kinds, "--fold-bn" not in options)
            self.assertEqual("Resize" in kinds, "--all-heads" in options)
            names = [t.name for t in model.graph.initializer]
            self.assertEqual(len(names), len(set(names)))

    def test_form(self):
        checkpoint = self.train_once("run", "resnet18")
        model, metadata = self.load(checkpoint)
        self.assertEqual(model.ir_version, 8)
        self.assertEqual([(entry.domain, entry.version) for entry in model.opset_import], [("", 13)])
        (entry,), (result,) = model.graph.input, model.graph.output
        for value, name, shape in ((entry, "input", [3, 32, 32]), (result, "logits", [10])):
            dims = value.type.tensor_type.shape.dim
            self.assertEqual(value.name, name)
            self.assertEqual(value.type.tensor_type.elem_type, onnx.TensorProto.FLOAT)
            self.assertEqual(dims[0].dim_param, "batch")
            self.assertEqual([dim.dim_value for dim in dims[1:]], shape)
        weights = {t.name: t for t in model.graph.initializer}
        self.assertEqual(list(weights["conv1.weight"].dims), [8, 3, 7, 7])
        self.assertEqual(metadata["network"], "resnet18")
        self.assertEqual(metadata["checkpoint"], checkpoint)
        self.assertEqual(metadata["image_height"], "32")

    def test_a_image_alone(self):
        checkpoint, _ = self.random_checkpoint("vgg16")
        model, metadata = self.load(checkpoint)
        images, _ = self.images(metadata)
        together, alone = evaluate(model, images[:3])["logits"], evaluate(model, images[1:2])["logits"]
        self.assertLess(numpy.abs(together[1:2] - alone).max(), 1e-12)

    def test_an_old_file_is_replaced_and_nothing_else_is_left(self):
        checkpoint = self.train_once("run", "cifarresnet8")
        with open(self.path("network.onnx"), "w", encoding="utf-8") as file:
            file.write("old")
        self.load(checkpoint)
        self.assertEqual(sorted(os.listdir(self.folder)), ["network.onnx", "run"])


def add_test(network):
    setattr(Onnx, f"test_{network}", lambda self: self.compare(network))


for name in FAMILIES:
    add_test(name)


load_tests = enough_under_sanitizers("Onnx.test_form", "Onnx.test_cifarresnet8", "Onnx.test_vgg16", "Onnx.test_seresnet18")


if __name__ == "__main__":
    unittest.main()
