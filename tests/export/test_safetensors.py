"""Export to and import from safetensors: the same tensors, the same answers, and clear words about files that do not
fit."""

import io
import os
import random
import shutil
import struct
import unittest
import zipfile

import numpy

from exchange import (FAMILIES, ExportTest, join_safetensors, read_safetensors, split_safetensors,
                      write_safetensors)
from program import Checkpoint, enough_under_sanitizers

SMALL = {"model.network": "cifarresnet8", **FAMILIES["cifarresnet8"]}
STUDENTS = ("laterals.", "upsample.", "fuse_", "downsample", "fc_b")


class Export(ExportTest):
    def contents(self, *options, **changes):
        self.checkpoint = self.train_once("run", "cifarresnet8", **changes)
        self.export(self.checkpoint, "safetensors", self.path("out.safetensors"), *options)
        return read_safetensors(self.path("out.safetensors"))

    def check_against_checkpoint(self, tensors, prefix="weights/"):
        saved = Checkpoint(self.checkpoint).tensors
        for name, values in tensors.items():
            if not name.endswith("num_batches_tracked"):
                self.assertEqual(values.dtype, numpy.float32)
                self.assertEqual(values.shape, saved[prefix + name].shape)
                self.assertEqual(values.tobytes(), saved[prefix + name].tobytes(), name)
        return {name[len(prefix):] for name in saved if name.startswith(prefix)}

    def test_all_heads(self):
        tensors, _ = self.contents("--all-heads")
        saved = self.check_against_checkpoint(tensors)
        norms = {name[: -len("running_mean")] for name in saved if name.endswith(".running_mean")}
        self.assertEqual(set(tensors), saved | {name + "num_batches_tracked" for name in norms})
        for name in norms:
            count = tensors[name + "num_batches_tracked"]
            self.assertEqual((count.dtype, count.shape, int(count)), (numpy.int64, (), 1))

    def test_the_teacher_alone(self):
        tensors, _ = self.contents()
        saved = self.check_against_checkpoint(tensors)
        teacher = {name for name in saved if not name.startswith(STUDENTS)}
        self.assertTrue(teacher < saved)
        self.assertEqual({name for name in tensors if not name.endswith("num_batches_tracked")}, teacher)

    def test_averages(self):
        tensors, metadata = self.contents("--ema", **{"train.ema_decay": 0.5})
        self.check_against_checkpoint(tensors, "ema/")
        self.assertEqual(metadata["weights"], "averages")
        self.train_once("plain", "cifarresnet8")
        self.refused(self.export(self.path("plain", "last.h5"), "safetensors", self.path("no"), "--ema", code=2),
                     "--ema", self.path("plain", "last.h5"))
        self.assertFalse(os.path.exists(self.path("no")))

    def test_metadata_and_layout(self):
        _, metadata = self.contents()
        expected = {"format": "pt", "network": "cifarresnet8", "classes": "10", "width": "8", "blocks": "1,1,1,1",
                    "students": "no", "mean": "0.4914,0.4822,0.4465", "std": "0.2023,0.1994,0.201",
                    "checkpoint": self.checkpoint, "epoch": "0", "step": "1", "steps_done": "1", "weights": "last"}
        self.assertEqual(metadata, metadata | expected)
        self.assertRegex(metadata["program"], r"^teskd \d+\.")
        header, data = split_safetensors(self.path("out.safetensors"))
        del header["__metadata__"]
        self.assertEqual((os.path.getsize(self.path("out.safetensors")) - len(data)) % 8, 0)
        end = 0
        for entry in sorted(header.values(), key=lambda entry: entry["data_offsets"]):
            self.assertEqual(entry["data_offsets"][0], end)
            end = entry["data_offsets"][1]
            self.assertEqual(entry["data_offsets"][0] % (8 if entry["dtype"] == "I64" else 4), 0)
        self.assertEqual(end, len(data))

    def test_a_checkpoint_of_any_name(self):
        made = self.train_once("run", "cifarresnet8")
        for name, recorded in ((b'Gr\xc3\xb6\xc3\x9fe "4".h5', 'Größe "4".h5'), (b"Gr\xf6\xdfe.h5", "Gr??e.h5")):
            copy = self.path(os.fsdecode(name))
            shutil.copy(made, copy)
            self.export(copy, "safetensors", self.path("out.safetensors"))
            _, metadata = read_safetensors(self.path("out.safetensors"))
            self.assertEqual(metadata["checkpoint"], self.path(recorded))

    def test_refusals(self):
        checkpoint, out = self.train_once("run", "cifarresnet8", **{"model.method": "plain"}), self.path("out")
        given = {"--checkpoint": checkpoint, "--format": "safetensors", "--out": out}
        for lacking in given:
            parts = [part for option, value in given.items() if option != lacking for part in (option, value)]
            self.refused(self.run_code(2, "export", *parts), lacking)
        self.refused(self.export(checkpoint, "pickle", out, code=2), "--format pickle", "safetensors", "onnx")
        self.refused(self.export(checkpoint, "safetensors", out, "--fold-bn", code=2), "--fold-bn")
        self.refused(self.export(checkpoint, "safetensors", out, "--all-heads", code=2), "--all-heads", checkpoint)
        self.refused(self.export(self.path("none.h5"), "onnx", out, code=1), self.path("none.h5"))
        for kind in ("safetensors", "onnx"):
            self.refused(self.export(checkpoint, kind, self.path("no", "out"), code=1), self.path("no", "out"))
        self.refused(self.run_code(2, "export", "--checkpoint", checkpoint, "--format", "onnx", "--out", out, ranks=2),
                     "one rank")
        self.assertEqual(sorted(os.listdir(self.folder)), ["run"])


class Import(ExportTest):
    def setUp(self):
        super().setUp()
        self.checkpoint, self.tensors = self.random_checkpoint("cifarresnet8")
        self.file, self.out = self.path("file.safetensors"), self.path("out.h5")

    def take(self, tensors, *options, changes=SMALL, dtype="F32", code=0):
        write_safetensors(self.file, tensors, dtype)
        return self.import_weights(self.file, self.out, changes, *options, code=code)

    def check_weights(self, tensors, tolerance=0.0):
        saved = Checkpoint(self.out).tensors
        for name, values in tensors.items():
            if not name.endswith("num_batches_tracked"):
                error = numpy.abs(saved["weights/" + name] - values).max()
                self.assertLessEqual(error, tolerance * numpy.abs(values).max(), name)

    def test_round_trip(self):
        self.export(self.checkpoint, "safetensors", self.path("again.safetensors"), "--all-heads")
        again, _ = read_safetensors(self.path("again.safetensors"))
        for name, values in self.tensors.items():
            if not name.endswith("num_batches_tracked"):
                self.assertEqual(values.tobytes(), again[name].tobytes(), name)
        state = Checkpoint(self.checkpoint)
        for name, values in state.tensors.items():
            if name.startswith("momentum/"):
                self.assertFalse(values.any(), name)
        for key in ("epoch", "step", "steps_done"):
            self.assertEqual(state.attributes[key], 0)

    def test_training_goes_on_from_it(self):
        self.run_code(0, *self.training_arguments("goes on", {**SMALL, "train.max_steps": 2}, self.checkpoint))
        self.assertEqual(self.last("goes on").attributes["steps_done"], 2)
        fresh = numpy.linalg.norm(self.last("cifarresnet8").tensors["weights/conv1.weight"]
                                  - self.tensors["conv1.weight"])
        moved = numpy.linalg.norm(self.last("goes on").tensors["weights/conv1.weight"] - self.tensors["conv1.weight"])
        self.assertLess(moved, fresh / 2)
        self.assertGreater(moved, 0)

    def test_averages_begin_at_the_weights(self):
        self.take(self.tensors, changes={**SMALL, "train.ema_decay": 0.9})
        saved = Checkpoint(self.out).tensors
        averages = [name for name in saved if name.startswith("ema/")]
        self.assertGreater(len(averages), 50)
        for name in averages:
            self.assertEqual(saved[name].tobytes(), saved["weights/" + name[4:]].tobytes())

    def test_other_types(self):
        for dtype, tolerance in (("F64", 0), ("F16", 2.0**-11), ("BF16", 2.0**-8)):
            self.take(self.tensors, dtype=dtype)
            self.check_weights(self.tensors, tolerance)

    def test_names_as_wrappers_save_them(self):
        """PyTorch's wrappers for several GPUs, for compiling and for averages put something before every name."""
        counted = {name for name in self.tensors if name.endswith("num_batches_tracked")}
        for wrapper, extra in (("module.", {}), ("_orig_mod.", {}), ("_orig_mod.module.", {}), ("net.model.", {}),
                               ("module.", {"n_averaged": numpy.array(7)})):
            result = self.take({wrapper + name: values for name, values in self.tensors.items()
                                if name not in counted} | extra)
            self.assertIn(f'all names begin with "{wrapper}", which is left out', result.out)
            self.check_weights(self.tensors)
        message = self.refused(self.take({"_orig_mod." + name: values for name, values in self.tensors.items()
                                          if name != "fc.bias"}, code=1), "1 missing: fc.bias")
        self.assertNotIn("unknown", message)
        names = {("module." if name.startswith("layer") else "") + name: self.tensors[name] for name in self.tensors}
        self.refused(self.take(names, code=1), "unknown: module.layer1")
        self.assertNotIn("left out", self.take(self.tensors).out)

    def test_numbers_that_are_not_finite(self):
        for dtype, value, words in (("F32", numpy.nan, "nan"), ("F16", numpy.inf, "inf"), ("BF16", -numpy.inf, "-inf"),
                                    ("F64", 1e300, "1e+300, which is not finite in float32")):
            tensors = dict(self.tensors)
            tensors["layer1.0.bn1.running_var"] = numpy.array(tensors["layer1.0.bn1.running_var"], numpy.float64)
            tensors["layer1.0.bn1.running_var"][3] = value
            self.refused(self.take(tensors, dtype=dtype, code=1), self.file, '"layer1.0.bn1.running_var"',
                         f"element 3 of 8 is {words}")
            self.assertFalse(os.path.exists(self.out))

    def test_an_export_that_is_not_finite(self):
        """Folded into its convolution a norm of great weight passes the largest float32."""
        tensors = {**self.tensors, "bn1.weight": numpy.full_like(self.tensors["bn1.weight"], 1e38)}
        tensors["bn1.running_var"] = numpy.zeros_like(self.tensors["bn1.running_var"])
        self.take(tensors)
        self.export(self.out, "onnx", self.path("plain.onnx"))
        self.refused(self.export(self.out, "onnx", self.path("folded.onnx"), "--fold-bn", code=1), self.out,
                     "'conv1.weight'", "inf", "not finite")
        self.assertFalse(os.path.exists(self.path("folded.onnx")))

    def test_the_teacher_alone(self):
        teacher = {name: values for name, values in self.tensors.items() if not name.startswith(STUDENTS)}
        self.refused(self.take(teacher, code=1), self.file, "missing: ", "laterals.")
        self.take(teacher, "--teacher-only")
        self.check_weights(teacher)
        self.take(self.tensors, "--teacher-only", changes={**SMALL, "model.method": "plain"})
        self.check_weights(teacher)
        lacking = {name: values for name, values in teacher.items() if name != "bn1.weight"}
        message = self.refused(self.take(lacking, "--teacher-only", code=1), "1 missing: bn1.weight")
        self.assertNotIn("laterals", message)

    def test_all_that_does_not_fit_is_listed(self):
        tensors = dict(self.tensors)
        del tensors["layer1.0.bn1.running_var"], tensors["fc_b2.bias"]
        tensors["fc.weight"] = tensors["fc.weight"][:7]
        tensors["conv1.weight"] = tensors["conv1.weight"].reshape(-1, 3, 9)
        tensors["head.weight"] = tensors["fc.bias"]
        message = self.refused(self.take(tensors, code=1), self.file, "cifarresnet8 with 10 classes",
                               "2 of another shape", "fc.weight [7, 64] instead of [10, 64]",
                               "conv1.weight [8, 3, 9] instead of [8, 3, 3, 3]", "2 missing", "fc_b2.bias",
                               "layer1.0.bn1.running_var", "1 unknown: head.weight")
        self.assertLess(len(message), 1000)
        self.refused(self.take({"\x1b[2J": tensors["fc.bias"]}, code=1), r"1 unknown: \x1b[2J")
        message = self.refused(self.take({"a": tensors["fc.bias"]}, code=1), "missing", "more", "1 unknown: a")
        self.assertLess(len(message), 1000)
        self.assertFalse(os.path.exists(self.out))

    def test_wrong_type(self):
        tensors = dict(self.tensors)
        tensors["fc.bias"] = numpy.zeros(10, numpy.int64)
        self.refused(self.take(tensors, code=1), self.file, "fc.bias", "I64")

    def test_usage(self):
        self.refused(self.run_code(2, "import", "--out", self.out), "--from")
        self.refused(self.run_code(2, "import", "--from", self.path("random.safetensors")), "--out")
        self.refused(self.run_code(2, "import", "--from", self.path("random.safetensors"), "--out", self.out,
                                   ranks=2), "one rank")
        self.refused(self.import_weights(self.path("none"), self.out, SMALL, code=1), self.path("none"))
        self.refused(self.import_weights(self.folder, self.out, SMALL, code=1), self.folder, "not a safetensors file but a folder")
        self.assertFalse(os.path.exists(self.out))


def archive(name):
    """A ZIP archive of one member."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(name, b"\x80\x02}q\x00.")
    return content.getvalue()


class OtherKinds(ExportTest):
    """A file of another kind is called what it is, and what can be done is said, whoever reads it."""

    POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"

    def read_by(self, path):
        """Reader and its message, of import, of eval and of reference."""
        yield "import", self.import_weights(path, self.path("out.h5"), SMALL, code=1)
        yield "eval", self.run_code(1, "eval", "--checkpoint", path, "--set", f"data.path={self.data}")
        yield "reference", self.run_code(1, "reference", path)

    def test_whoever_reads_it(self):
        path = self.path("file")
        kinds = {self.POINTER: ("a Git LFS pointer", "'git lfs pull' fetches the file itself"),
                 b"\n<!DOCTYPE HTML><html><body>404</body></html>": ("a web page", "download"),
                 archive("net/data.pkl"): ("a PyTorch file", "safetensors.torch.save_file"),
                 archive("weights.npy"): ("a ZIP archive", "unpack"),
                 b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.": ("a PyTorch file", "safetensors.torch.save_file"),
                 b"\x80\x04\x95\x0b\x00": ("a Python pickle", "safetensors"),
                 b"\x1f\x8b\x08\x00": ("a compressed file", "unpack"),
                 b'{"metadata": {}, "weight_map": {}}': ("a JSON text", "another file"),
                 b"\x08\x08\x12\x05teskd": ("an ONNX file", "not read"),
                 b"": ("an empty file", "again")}
        for content, (kind, advice) in kinds.items():
            with open(path, "wb") as file:
                file.write(content)
            for reader, result in self.read_by(path):
                if reader == "eval" and not content: # damaged, as a checkpoint
                    continue
                message = self.refused(result, f"{path}: not a", f" but {kind}")
                if reader != "reference":
                    self.assertIn(advice, message)
        os.remove(path)
        os.mkfifo(path)
        for place, kind in ((path, "a pipe or a device"), (self.folder, "a folder"), ("/dev/null", "a pipe or a device")):
            for _, result in self.read_by(place):
                self.refused(result, f"{place}: not a ", f" but {kind}")

    def test_one_that_another_command_takes(self):
        checkpoint = self.train_once("run", "cifarresnet8")
        self.refused(self.import_weights(checkpoint, self.path("out.h5"), SMALL, code=1), "but a checkpoint",
                     "'teskd export'")
        self.export(checkpoint, "safetensors", self.path("file"))
        self.refused(self.run_code(1, "eval", "--checkpoint", self.path("file")), "a safetensors file",
                     "'teskd import' makes a checkpoint of it")
        self.export(checkpoint, "onnx", self.path("file"))
        self.refused(self.run_code(1, "eval", "--checkpoint", self.path("file")), "an ONNX file")

    def test_images(self):
        os.mkdir(self.path("data"))
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)]:
            with open(self.path("data", name), "wb") as file:
                file.write(self.POINTER)
        result = self.run_code(1, *self.training_arguments("run", {"data.path": self.path("data")}))
        self.refused(result, "data_batch_1.bin: not records of images but a Git LFS pointer; 'git lfs pull'")


class Malformed(ExportTest):
    """Damaged files: one message with the path and, where it makes sense, the place; never a checkpoint."""

    def refuse(self, content, *words):
        path = self.path("bad.safetensors")
        with open(path, "wb") as file:
            file.write(content)
        result = self.import_weights(path, self.path("out.h5"), SMALL, code=1)
        self.assertFalse(os.path.exists(self.path("out.h5")))
        return self.refused(result, path, *words)

    def refuse_header(self, header, data, *words):
        join_safetensors(self.path("bad.safetensors"), header, data)
        with open(self.path("bad.safetensors"), "rb") as file:
            return self.refuse(file.read(), *words)

    def test_header(self):
        self.refuse(b"", "but an empty file")
        self.refuse(b"abc", "3 bytes")
        self.refuse(b"\x89HDF\r\n\x1a\n" + bytes(100), "not a safetensors file but an HDF5 file", "teskd export")
        self.refuse(b"\xff" * 100, "offset 0", "is it a safetensors file of one network")
        self.refuse(struct.pack("<Q", 500) + b"{}", "offset 0", "500 bytes", "cut off")
        self.refuse_header(b"", b"", "offset 8")
        self.refuse_header(b"[]", b"", "offset 8", "no JSON object")
        self.refuse_header(b'{"a": ', b"", "offset 14")
        self.refuse_header(b'{"a" 1}', b"", "offset 13", "no JSON")
        self.refuse_header(b"{} {}", b"", "offset 11")
        self.refuse_header(b'{"\xff": 1}', b"", "no JSON")
        self.refuse_header(b"[" * 1000 + b"]" * 1000, b"", "no JSON")
        self.refuse_header({"__metadata__": 3}, b"", "__metadata__")

    def test_entries(self):
        def entry(**changes):
            return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}

        data = bytes(8)
        self.refuse_header({"a": 3}, data, '"a"', "no object")
        self.refuse_header({"a": {}}, data, '"a"', "dtype")
        self.refuse_header(entry(dtype=3), data, '"a"', "dtype")
        self.refuse_header(entry(dtype="F33"), data, '"a"', "F33")
        self.refuse_header(entry(shape=2), data, '"a"', "shape")
        self.refuse_header(entry(shape=[-2]), data, '"a"', "shape")
        self.refuse_header(entry(shape=[2.0]), data, '"a"', "shape")
        self.refuse_header(entry(shape=[1] * 9), data, '"a"', "shape", "9")
        self.refuse_header(entry(shape=[2**40, 2**40]), data, '"a"', "do not fit")
        self.refuse_header(entry(shape=[3]), data, '"a"', "8 bytes", "do not fit")
        self.refuse_header(entry(data_offsets=[0]), data, '"a"', "data_offsets")
        self.refuse_header(entry(data_offsets=[8, 0]), data, '"a"', "data_offsets")
        self.refuse_header(entry(data_offsets=[0, 10**18]), data, '"a"', "cut off")
        self.refuse_header(entry(data_offsets=[0, 10**30]), data)  # which json-c takes for no number, from 0.17 on
        self.refuse_header(entry(), data[:7], '"a"', "cut off")

    def test_places(self):
        def two(first, second, dtype="U8"):
            return {name: {"dtype": dtype, "shape": [end - begin], "data_offsets": [begin, end]}
                    for name, (begin, end) in (("a", first), ("b", second))}

        self.refuse_header(two((0, 5), (4, 8)), bytes(8), '"a"', '"b"', "overlap at offset")
        self.refuse_header(two((0, 8), (0, 8)), bytes(8), "overlap")
        self.refuse_header(two((0, 3), (4, 8)), bytes(8), "no tensor")
        self.refuse_header(two((0, 4), (4, 7)), bytes(8), "no tensor")

    def test_random_damage(self):
        """Any change of the header is refused or does no harm; the program always ends in order."""
        self.export(self.train_once("run", "cifarresnet8"), "safetensors", self.path("good.safetensors"),
                    "--all-heads")
        with open(self.path("good.safetensors"), "rb") as file:
            good = file.read()
        length = struct.unpack_from("<Q", good)[0] + 8
        generator = random.Random(1)
        for _ in range(25):
            bad = bytearray(good)
            for _ in range(generator.choice([1, 1, 3, 30])):
                bad[generator.randrange(length)] = generator.randrange(256)
            if generator.random() < 0.2:
                del bad[generator.randrange(len(bad)):]
            path = self.path("bad.safetensors")
            with open(path, "wb") as file:
                file.write(bad)
            result = self.import_weights(path, self.path("out.h5"), SMALL, code=None)
            self.assertIn(result.code, (0, 1), str(result))
            if result.code == 1:
                self.refused(result, path)


load_tests = enough_under_sanitizers("Export.test_all_heads", "Export.test_averages", "Export.test_refusals",
                                     "Import.test_round_trip", "Import.test_other_types",
                                     "Import.test_all_that_does_not_fit_is_listed", "OtherKinds", "Malformed")


if __name__ == "__main__":
    unittest.main()
