"""teskd data pack from ImageNet's archives as they are downloaded: the shards are those of the unpacked class folders.
And packings of many shards that are killed."""

import gzip
import io
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import tarfile
import tempfile
import time
import unittest
import zlib

import h5py

from program import SOURCE, TESKD, ProgramTest, enough_under_sanitizers, environment, run

KIT = "ILSVRC2012_devkit_t12"
LIST = "ILSVRC2012_validation_ground_truth.txt"


def element(kind, content):
    """Of a MATLAB file of version 5."""
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind, sizes, name, content):
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(sizes)}i", *sizes))
    return element(14, head + element(1, name) + content)


def text(value):
    return matrix(4, [1, len(value)], b"", element(4, value.encode("utf-16-le")))


def number(value):
    return matrix(9, [1, 1], b"", struct.pack("<HHBBBB", 2, 1, value, 0, 0, 0))  # a small element


def meta_mat(ids, compressed=True):
    """The kit's meta.mat: class id -> number."""
    fields = [b"ILSVRC2012_ID", b"WNID", b"words", b"gloss"]
    content = struct.pack("<HHI", 5, 4, 32) + element(1, b"".join(field.ljust(32, b"\0") for field in fields))
    for name, value in ids.items():
        content += number(value) + text(name) + text(f"word of {name}") + text("gloss")
    whole = matrix(2, [len(ids), 1], b"synsets", content)
    if compressed:
        packed = zlib.compress(whole)
        whole = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + whole


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


class Archives(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="teskd-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.images = cls.root / "images"
        drawn = run("data", "synth", "--folders", "--out", cls.images, "--train-images", 120, "--test-images", 40)
        assert drawn.code == 0, str(drawn)
        cls.classes = sorted(path.name for path in (cls.images / "train").iterdir())
        rng = random.Random(1)
        val = [(path.parent.name, path) for path in sorted((cls.images / "val").rglob("*.*"))]
        rng.shuffle(val)
        cls.val = []  # (class, path) of validation image 1, 2, ..., called as ImageNet's are
        for i, (label, path) in enumerate(val):
            named = path.with_name(f"ILSVRC2012_val_{i + 1:08}{path.suffix}")
            path.rename(named)
            cls.val.append((label, named))
        numbers = list(range(1, len(cls.classes) + 1))
        rng.shuffle(numbers)
        cls.numbers = dict(zip(cls.classes, numbers))
        cls.write_train(cls.root / "train.tar", rng)
        cls.write_val(cls.root / "val.tar")

    @classmethod
    def write_train(cls, path, rng):
        shuffled = rng.sample(cls.classes, len(cls.classes))
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as outer:
            for label in shuffled:
                inner = io.BytesIO()
                files = sorted((cls.images / "train" / label).iterdir())
                rng.shuffle(files)
                with tarfile.open(fileobj=inner, mode="w") as tar:
                    for file in files:
                        tar.add(file, arcname=file.name)
                add(outer, f"{label}.tar", inner.getvalue())

    @classmethod
    def write_val(cls, path):
        with tarfile.open(path, "w") as tar:
            for _, file in cls.val:
                tar.add(file, arcname=file.name)

    def setUp(self):
        super().setUp()
        self.work = pathlib.Path(self.folder)
        self.source = self.work / "source"
        self.source.mkdir()
        (self.source / "ILSVRC2012_img_train.tar").symlink_to(self.root / "train.tar")
        (self.source / "ILSVRC2012_img_val.tar").symlink_to(self.root / "val.tar")

    def pack(self, name, source, *more, code=0):
        out = self.work / name
        return out, self.run_code(code, "data", "pack", "--from", source, "--out", out, *more)

    def contents(self, path):
        return {file.name: file.read_bytes() for file in path.iterdir()}

    def expect_same(self, name, *more, names=False):
        """As from the class folders: to the byte, where the classes have no names of their own."""
        out, _ = self.pack(name, self.source, *more)
        if not names:
            self.assertEqual(self.contents(out), self.contents(self.pack("folders", self.images)[0]))
        self.run_code(0, "data", "unpack", out, "--out", self.work / "back")
        for split in ("train", "val"):
            for label in self.classes:
                self.assertEqual(self.contents(self.work / "back" / split / label),
                                 self.contents(self.images / split / label))
        shutil.rmtree(self.work / "back")
        return out

    def lines(self, form):
        return "".join(form.format(name=file.stem, suffix=file.suffix, label=label, place=self.classes.index(label),
                                   number=self.numbers[label]) + "\n" for label, file in self.val)

    def write_kit(self, path, meta, truth):
        with tarfile.open(path, "w:gz") as tar:
            add(tar, f"{KIT}/data/{LIST}", truth.encode())
            add(tar, f"{KIT}/data/meta.mat", meta)

    def test_lists_of_validation_classes(self):
        for name, form, head in [
            ("LOC_val_solution.csv", "{name},{label} 85 1 499 272 {label} 3 4 5 6", "ImageId,PredictionString\n"),
            ("val.txt", "{name}{suffix} {place}", ""),
            ("imagenet_2012_validation_synset_labels.txt", "{label}", ""),
        ]:
            with self.subTest(name=name):
                (self.source / name).write_text(head + self.lines(form))
                self.expect_same(f"of-{name}")
                (self.source / name).rename(self.work / "labels")
                self.expect_same(f"told-{name}", "--val-labels", self.work / "labels")

    def test_validation_images_in_one_folder(self):
        """As Kaggle has it: class folders for training, one folder and a table for the others."""
        shutil.rmtree(self.source)
        self.source.mkdir()
        (self.source / "train").symlink_to(self.images / "train")
        (self.source / "val").mkdir()
        for _, file in self.val:
            (self.source / "val" / file.name).symlink_to(file)
        table = self.work / "LOC_val_solution.csv"
        table.write_text("ImageId,PredictionString\n" + self.lines("{name},{label} 1 2 3 4"))
        self.expect_same("kaggle", "--val-labels", table)
        table.write_text(self.lines("{name} {label}").split("\n", 1)[1])
        self.refuse("no line says its class", "ILSVRC2012_val_00000001", options=["--val-labels", table])

    def test_development_kit(self):
        for compressed in (True, False):
            meta, truth = meta_mat(self.numbers, compressed), self.lines("{number}")
            self.write_kit(self.source / f"{KIT}.tar.gz", meta, truth)
            out = self.expect_same(f"kit-{compressed}", names=True)
            with h5py.File(out / "train-00000.h5") as file:
                self.assertTrue(file["class_names"][:].tobytes().startswith(f"word of {self.classes[0]}".encode()))
            (self.source / f"{KIT}.tar.gz").unlink()
        data = self.source / KIT / "data"
        data.mkdir(parents=True)
        (data / "meta.mat").write_bytes(meta)
        (data / LIST).write_text(truth)
        self.expect_same("unpacked-kit", names=True)

    def test_class_folders_in_archives(self):
        for split in ("train", "val"):
            (self.source / f"ILSVRC2012_img_{split}.tar").unlink()
            with tarfile.open(self.source / f"{split}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
                tar.add(self.images / split, arcname=f"./{split}")
        self.expect_same("folders-in-archives")

    def test_long_names(self):
        long = "x" * 150 + ".jpg"
        image = next((self.images / "train" / self.classes[0]).glob("*.jpg")).read_bytes()
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            source = self.work / f"long-{form}"
            source.mkdir()
            with tarfile.open(source / "train.tar", "w", format=form) as tar:
                add(tar, f"{'d' * 120}/{long}", image)
                add(tar, "other/é.jpg", image)
            out, _ = self.pack(f"out-{form}", source)
            self.run_code(0, "data", "check", out, "--deep")
            self.run_code(0, "data", "unpack", out, "--out", self.work / f"back-{form}")
            self.assertEqual((self.work / f"back-{form}" / "train" / ("d" * 120) / long).read_bytes(), image)
            self.assertEqual((self.work / f"back-{form}" / "train/other/é.jpg").read_bytes(), image)

    def refuse(self, *words, options=()):
        out = self.work / "refused"
        result = run("data", "pack", "--from", self.source, "--out", out, *options)
        self.assertIn(result.code, (1, 2), str(result))
        self.refused(result, *words)
        self.assertFalse((out / "manifest.json").exists())

    def test_refusals(self):
        self.refuse(f"{KIT}.tar.gz", "LOC_val_solution.csv", "--val-labels")
        val = self.source / "val.txt"
        val.write_text("ILSVRC2012_val_00000001.JPEG n99\n")
        self.refuse("val.txt", "line 1", '"n99"')
        val.write_text(self.lines("{name} {label}").split("\n", 1)[1])
        self.refuse("ILSVRC2012_img_val.tar", "no line says the class of ILSVRC2012_val_00000001")
        val.write_text(2 * self.lines("{name} {label}"))
        self.refuse("val.txt", "twice")
        val.unlink()
        self.write_kit(self.source / f"{KIT}.tar.gz", meta_mat(self.numbers)[:400], self.lines("{number}"))
        self.refuse(f"{KIT}.tar.gz", "meta.mat", "MATLAB")

    def test_damaged_archives(self):
        train = self.source / "ILSVRC2012_img_train.tar"
        (self.source / "ILSVRC2012_img_val.tar").unlink()
        whole = train.read_bytes()
        train.unlink()
        train.write_bytes(gzip.compress(whole))
        self.refuse(str(train), "compressed")
        train.write_bytes(whole[:len(whole) // 2])
        self.refuse(str(train), "not whole")
        for header in (0, 512):  # of the archive, and of the first one in it
            train.write_bytes(whole[:header + 100] + b"\xff" * 5 + whole[header + 105:])
            self.refuse(str(train), f"offset {header}")
        train.write_bytes(b"no archive at all" * 100)
        self.refuse(str(train), "not a tar archive")
        train.write_bytes(b"")
        self.refuse(str(train))

    def test_killed_with_many_shards(self):
        images = self.work / "images"
        drawn = run("data", "synth", "--folders", "--out", images, "--train-images", 2000, "--test-images", 10)
        self.assertEqual(drawn.code, 0, str(drawn))
        options = ["--shard-mib", 1, "--threads", 2]
        begin = time.monotonic()
        whole, _ = self.pack("whole", images, *options)
        seconds, rng, kept = time.monotonic() - begin, random.Random(2), 0
        self.assertGreater(len(list(whole.iterdir())), 4)
        out = self.work / "killed"
        command = [str(part) for part in (TESKD, "data", "pack", "--from", images, "--out", out, *options)]
        for _ in range(10):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
            time.sleep(rng.uniform(0.3, 1) * seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if (out / "manifest.json").exists():
                self.run_code(0, *command[1:])
                self.assertTrue(self.contents(out) == self.contents(whole))
                shutil.rmtree(out)
            elif out.exists():
                kept += len(list(out.glob("*.h5")))
        said = self.run_code(0, *command[1:])
        self.assertTrue(self.contents(out) == self.contents(whole), said.out)
        self.assertGreater(kept, 0, "no kill came between two shards")

    def test_changed_originals_are_packed_again(self):
        """Of the same size, under the same name: a shard from before is not kept."""
        images = self.work / "images"
        shutil.copytree(self.images, images)
        out, _ = self.pack("out", images)
        first = self.contents(out)
        (out / "manifest.json").unlink()
        stamp = (images / "train").stat()
        (out / "packing.txt").write_text("of another packing\n")
        file = next((images / "train" / self.classes[0]).glob("*.jpg"))
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        self.assertEqual(stamp.st_ino, (images / "train").stat().st_ino)
        self.pack("out", images)
        self.assertNotEqual(self.contents(out)["manifest.json"], first["manifest.json"])

    def test_another_data_set_stays(self):
        out, _ = self.pack("out", self.images)
        before = self.contents(out)
        result = self.run_code(2, "data", "pack", "--from", self.images, "--out", out, "--seed", 5)
        self.refused(result, "another packed data set", "--overwrite")
        self.assertEqual(self.contents(out), before)
        self.run_code(0, "data", "pack", "--from", self.images, "--out", out, "--seed", 5, "--overwrite")
        self.assertNotEqual(self.contents(out), before)
        self.assertEqual(sorted(self.contents(out)), sorted(before))

    def test_no_room(self):
        out = self.work / "out"
        limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "-", TESKD, "data", "pack", "--from", str(self.images), "--out",
                   str(out)]
        result = subprocess.run(limited, capture_output=True, text=True, env=environment(), check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn(".h5: cannot write: File too large", result.stderr)
        self.assertEqual([path.name for path in out.iterdir()], ["packing.txt"])
        self.assertEqual(self.contents(self.pack("out", self.images)[0]), self.contents(self.pack("new", self.images)[0]))

    def test_documented_reader(self):
        """The lines of Python in docs/formats.md."""
        out, _ = self.pack("out", self.images)
        document = (SOURCE / "docs" / "formats.md").read_text(encoding="utf-8")
        block = re.search(r"^    import h5py\n    with h5py.File\(\"runs/shards/.*\n(?:    .*\n)*", document, re.M)[0]
        code, names = "\n".join(line[4:] for line in block.splitlines()).replace("runs/shards", str(out)), {}
        exec(code, names)  # pylint: disable=exec-used
        self.assertIn(names["jpeg"][:2], (b"\xff\xd8", b"\x89P"))
        self.assertLess(names["label"], len(self.classes))

    def test_sheet(self):
        out, _ = self.pack("out", self.images)
        sheet = self.work / "sheet.png"
        said = self.run_code(0, "data", "show", out, "--grid", sheet, "--image-size", 32)
        self.assertIn(str(sheet), said.out)
        head = sheet.read_bytes()[:24]
        self.assertEqual(head[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", head[16:]), (4 + 8 * 36, 4 + 4 * 47))
        for grid in (out / "manifest.json", out / "train-00000.h5"):
            result = self.run_code(2, "data", "show", out, "--grid", grid)
            self.refused(result, "a file of the data set")
        self.run_code(0, "data", "check", out)


load_tests = enough_under_sanitizers(*(f"Archives.test_{name}" for name in (
    "lists_of_validation_classes", "development_kit", "long_names", "damaged_archives", "sheet")))


if __name__ == "__main__":
    unittest.main()
