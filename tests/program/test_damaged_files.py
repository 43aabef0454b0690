"""Checkpoints and references that are damaged, of another program, or made to do harm: each is refused by name."""

import fcntl
import os
import pathlib
import shutil
import time
import unittest
import zlib

import h5py
import numpy

from program import SOURCE, ProgramTest, enough_under_sanitizers, reseal, xxh3

BLOCK = 512  # bytes before the HDF5 file


class Damaged(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = cls.class_folder
        cls.train(cls(), "trained", {"train.max_steps": 2})
        cls.whole = os.path.join(cls.class_folder, "trained", "last.h5")

    def copy(self, name="copy.h5"):
        return shutil.copy(self.whole, self.path(name))

    def changed(self, change):
        """A copy that h5py has changed, whole to all appearances."""
        path = self.copy()
        with h5py.File(path, "r+") as file:
            change(file)
        reseal(path)
        return path

    def with_number(self, key, value):
        return self.changed(lambda file: file.attrs.modify(key, value))

    def export(self, path, code=1):
        return self.run_code(code, "export", "--checkpoint", path, "--format", "safetensors", "--out",
                             self.path("out.safetensors"), timeout=60)

    def refuses(self, path, *words):
        self.refused(self.export(path), path, *words)
        self.assertFalse(os.path.exists(self.path("out.safetensors")))

    def refuses_resume(self, path, *words):
        result = self.run_code(1, *self.training_arguments("resumed", None, path), timeout=60)
        self.refused(result, path, *words)

    def test_changed_bytes(self):
        size = os.path.getsize(self.whole)
        for at in (3, 17, 27, 300, BLOCK + 5, size // 2, size - 1):
            with self.subTest(at=at):
                path = self.copy()
                with open(path, "r+b") as file:
                    file.seek(at)
                    byte = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([byte ^ 1]))
                self.refuses(path, "damaged")

    def test_other_length(self):
        size = os.path.getsize(self.whole)
        for length in (0, 20, BLOCK, size - 8, size + 1, size + 5000):
            with self.subTest(length=length):
                path = self.copy()
                os.truncate(path, length)
                self.refuses(path, "damaged")

    def test_damage_and_appended_bytes(self):
        path = self.copy()
        with open(path, "r+b") as file:
            file.seek(BLOCK + 1000)
            file.write(b"\xff\xff")
            file.seek(0, os.SEEK_END)
            file.write(b"\0")
        self.refuses_resume(path, "damaged")

    def test_not_ours(self):
        path = self.path("foreign.h5")
        with open(self.whole, "rb") as ours, open(path, "wb") as file:
            file.write(ours.read()[BLOCK:])
        self.refuses(path, "not a teskd-checkpoint", "HDF5", "teskd import")
        os.mkfifo(self.path("pipe"))
        for path, word in ((self.path("pipe"), "pipe"), ("/dev/zero", "device"), (self.folder, "folder")):
            self.refuses(path, word)
            self.refuses_resume(path, word)

    def test_other_files(self):
        def link(file):
            file["weights/more"] = h5py.ExternalLink("/etc/passwd", "/x")
        self.refuses(self.changed(link), "weights/more", "link")

        def store(file):
            del file["weights/fc.bias"]
            file.create_dataset("weights/fc.bias", (10,), "f4", external=[("/etc/passwd", 0, 40)])
        self.refuses(self.changed(store), "weights/fc.bias", "another file")

    def test_links_kept_in_another_way(self):
        """HDF5 crashes on some damaged indices of links."""
        path = self.path("old.h5")
        with h5py.File(self.whole) as whole, h5py.File(path, "w", libver="earliest") as file:
            for key, value in whole.attrs.items():
                file.attrs[key] = value
            whole.copy("weights", file)
        reseal(path)
        self.refuses(path, "the links of group '/'")

    def test_checksum_of_another_size(self):
        def lengthen(file):
            file["weights/fc.bias"].attrs["xxh3"] = [2**63] * 24
        self.refuses(self.changed(lengthen), "weights/fc.bias")

    def test_numbers(self):
        for key, value in (("classes", 2**32 + 10), ("classes", 0), ("epoch", -1), ("epoch", 2**40),
                           ("steps_done", 2**62), ("step", 2**32 + 1), ("evaluated_at", 3)):
            with self.subTest(key=key, value=value):
                self.refuses(self.with_number(key, value), f"damaged: {key} is {value}, expected")
        self.refuses_resume(self.with_number("classes", 2**32 + 10), "classes is")
        self.refuses_resume(self.with_number("best_top1", float("nan")), "best_top1 is nan")

    def test_more_steps_than_an_epoch_has(self):
        def advance(file):
            file.attrs.modify("step", 2**32 + 1)
            file.attrs.modify("steps_done", 2**32 + 1)
        self.refuses_resume(self.changed(advance), "step is 4294967297, expected 0 to 10")

    def test_sums_that_are_not_finite(self):
        def spoil(file):
            sums = file["progress/epoch_sums"]
            sums[3] = float("inf")
            sums.attrs.modify("xxh3", xxh3(sums[()].tobytes()))
        self.refuses_resume(self.changed(spoil), "progress/epoch_sums", "not finite")

    def test_weights_that_are_not_finite(self):
        def spoil(file):
            weight = file["weights/conv1.weight"]
            weight[1, 0, 0, 0] = float("nan")
            weight.attrs.modify("xxh3", xxh3(weight[()].tobytes()))
        path = self.changed(spoil)
        self.refuses(path, "'conv1.weight'", "element 27 of 108", "nan", "not finite")
        self.refused(self.run_code(1, "export", "--checkpoint", path, "--format", "onnx", "--out",
                                   self.path("out.onnx")), path, "'conv1.weight'", "not finite")

    def test_nothing_unprintable_is_printed(self):
        clear, shown = "\x1b[2J\x9b1m\n\u202e", r"\x1b[2J\xc2\x9b1m\x0a\xe2\x80\xae"

        def text(key):
            return self.changed(lambda file: file.attrs.modify(key, numpy.bytes_((clear + "ö").encode())))

        def tensor(file):
            made = file.create_dataset("weights/" + clear, data=numpy.zeros(3, "f4"))
            made.attrs["xxh3"] = numpy.uint64(xxh3(made[()].tobytes()))
        self.refuses(text("format"), shown + "ö")
        self.refuses_resume(self.changed(tensor), f"'weights/{shown}'", "belongs to no part")

    def test_locked(self):
        path = self.copy()
        with open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.export(path, code=0)
        with h5py.File(path, "r+"):
            self.train("resumed", {"train.max_steps": 3}, resume=path)


class References(ProgramTest):
    def refuses(self, change, *words):
        path = shutil.copy(SOURCE / "tests/data/cifarresnet8.h5", self.path("reference.h5"))
        with h5py.File(path, "r+") as file:
            change(file)
        result = self.run_code(1, "reference", path, "--device", "reference", timeout=60)
        self.refused(result, path, *words)

    def test_links(self):
        def replace(name, link):
            def change(file):
                shutil.copy(file.filename, self.path("other.h5"))  # which has what is wanted
                file.move(name, "kept")
                file[name] = link
            return change
        elsewhere = "a link to somewhere else, which is not followed"
        self.refuses(replace("logits", h5py.ExternalLink(self.path("other.h5"), "/logits")), '"logits"', elsewhere)
        self.refuses(replace("logits", h5py.SoftLink("/kept")), '"logits"', elsewhere)
        self.refuses(replace("gradients", h5py.SoftLink("/kept")), '"gradients/', elsewhere)
        self.refuses(replace("after/fc.bias/index", h5py.SoftLink("/kept")), '"after/fc.bias/index"', elsewhere)

    def test_values_in_other_files(self):
        def store(file):
            shape = file["logits"].shape
            del file["logits"]
            file.create_dataset("logits", shape, "f8", external=[("/dev/zero", 0, 2**30)])
        self.refuses(store, '"logits"', "in another file")

        def gather(file):
            layout = h5py.VirtualLayout(file["logits"].shape, "f8")
            layout[...] = h5py.VirtualSource(file.filename, "kept", file["logits"].shape)
            file.move("logits", "kept")
            file.create_virtual_dataset("logits", layout)
        self.refuses(gather, '"logits"', "in another file")

    def test_more_elements_than_bytes(self):
        def enlarge(file):
            del file["after/fc.bias/value"]
            file.create_dataset("after/fc.bias/value", (2**40,), "f8", chunks=(2**10,))  # of which none is stored
        self.refuses(enlarge, '"after/fc.bias/value"', "1099511627776 elements", "bytes")

    @unittest.skipIf(os.environ.get("TESKD_SANITIZED"), "sanitizers end a process without memory")
    def test_more_memory_than_bytes(self):
        def inflate(file):
            shape = file["logits"].shape
            chunk = (1,) * (len(shape) - 1) + (100 * 2**20,)
            del file["logits"]
            made = file.create_dataset("logits", shape, "f8", maxshape=(*shape[:-1], None), compression="gzip",
                                       chunks=chunk)
            packer = zlib.compressobj(1)
            packed = b"".join(packer.compress(bytes(2**23)) for _ in range(100)) + packer.flush()
            made.id.write_direct_chunk((0,) * len(shape), packed)
        self.refuses(inflate, "cannot read a dataset", "512 MiB")

    def test_what_hdf5_does_not_withstand(self):
        """Found by tests/fuzz: HDF5 1.10 crashes on these files, or does not end. Later versions may refuse them."""
        for path in sorted((SOURCE / "tests/fuzz/corpus/reference").glob("crash_*.h5")) + [
                SOURCE / "tests/fuzz/corpus/reference/hang.h5"]:
            with self.subTest(path.name):
                self.refused(self.run_code(1, "reference", path, "--device", "reference", timeout=60), str(path))

    def test_no_dataset(self):
        def change(file):
            del file["logits"]
            file.create_group("logits")
        self.refuses(change, '"logits" is no dataset')

    def test_numbers(self):
        for name, value, expected in (("batch", 2**62, "1 to 1048576"), ("height", -1, "1 to 4096"),
                                      ("steps", 2**40, "1 to 1048576"), ("base_width", 2**62, "0 to 16384"),
                                      ("nesterov", 2, "0 to 1")):
            with self.subTest(name=name):
                self.refuses(lambda file: file.attrs.create(name, value), f'"{name}" is {value}, expected {expected}')
        self.refuses(lambda file: file.attrs.create("lr", float("nan")), '"lr" is nan, expected a finite number')
        self.refuses(lambda file: file.attrs.create("temperature", 0.0), '"temperature" is 0, expected more than 0')
        self.refuses(lambda file: file.attrs.create("lars_eta", -1.0), '"lars_eta" is -1, expected a finite number')

    def test_attributes_of_another_shape(self):
        for name, value in (("batch", [2] * 24), ("lr", [0.1] * 64), ("network", [1.0] * 64)):
            with self.subTest(name=name):
                self.refuses(lambda file: file.attrs.create(name, value), f'"{name}"')


class Equal(ProgramTest):
    def test_equal_runs_leave_equal_bytes(self):
        found = []
        for name in ("a", "b"):
            os.mkdir(self.path(name))
            arguments = self.training_arguments("run", {"output.dir": "run", "train.max_steps": 2})
            self.run_code(0, *arguments, cwd=self.path(name))
            found.append([pathlib.Path(self.path(name, "run", file)).read_bytes() for file in ("last.h5", "best.h5")])
            time.sleep(1.1)  # time stamps would differ
        self.assertTrue(found[0] == found[1])


load_tests = enough_under_sanitizers("Damaged", "References")


if __name__ == "__main__":
    unittest.main()
