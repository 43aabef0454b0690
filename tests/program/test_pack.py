"""teskd data: class folders, lists and CIFAR to shards and back, whatever interrupts it; and what check finds."""

import hashlib
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import h5py

from program import TESKD, ProgramTest, enough_under_sanitizers, environment, run


def files_of(folder):
    """Relative path -> bytes of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(pathlib.Path(folder).rglob("*"))
            if path.is_file()}


def digest(folder):
    return {name: hashlib.sha256(data).hexdigest() for name, data in files_of(folder).items() if name != "teskd.lock"}


class Packing(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.images = pathlib.Path(cls.folder_of_class()) / "images"
        cls.expect(run("data", "synth", "--folders", "--out", cls.images, "--train-images", 200, "--test-images", 40))

    def setUp(self):
        super().setUp()
        self.work = pathlib.Path(self.folder)

    @classmethod
    def folder_of_class(cls):
        folder = tempfile.mkdtemp(prefix="teskd-test-")
        cls.addClassCleanup(shutil.rmtree, folder)
        return folder

    @staticmethod
    def expect(result, code=0):
        if result.code != code:
            raise AssertionError(f"expected exit code {code}: {result}")
        return result

    def pack(self, name, *more, images=None, ranks=1, code=0):
        out = self.work / name
        return out, self.expect(run("data", "pack", "--from", images or self.images, "--out", out, *more, ranks=ranks), code)

    def test_there_and_back(self):
        out, said = self.pack("shards")
        self.assertIn("200 training and 40 validation images of 10 classes", said.out)
        self.assertIn("PNG", said.out)
        self.expect(run("data", "check", out, "--deep"))
        self.assertIn("10 classes", run("data", "show", out).out)
        self.expect(run("data", "unpack", out, "--out", self.work / "back"))
        self.assertEqual(files_of(self.work / "back"), files_of(self.images))
        again = self.pack("shards")[1]
        self.assertIn("holds this data set already", again.out)

    def test_h5py_reads_it(self):
        out, _ = self.pack("shards")
        with h5py.File(out / "train-00000.h5") as f:
            names, at = f["names"][:].tobytes(), f["name_offset"][:]
            ids, id_at = f["class_ids"][:].tobytes(), f["class_id_offset"][:]
            self.assertEqual(sorted(f["position"][:]), list(range(200)))
            for i in range(0, 200, 17):
                begin, size, label = int(f["offset"][i]), int(f["size"][i]), int(f["label"][i])
                name = names[at[i]:at[i + 1]].decode().rstrip("\0")
                self.assertEqual(f["bytes"][begin:begin + size].tobytes(), (self.images / "train" / name).read_bytes())
                self.assertEqual(ids[id_at[label]:id_at[label + 1]].decode().rstrip("\0"), name.split("/")[0])

    def test_threads_and_ranks(self):
        first = digest(self.pack("one", "--threads", 1)[0])
        self.assertEqual(digest(self.pack("four", "--threads", 4)[0]), first)
        self.assertEqual(digest(self.pack("ranks", ranks=2)[0]), first)
        self.assertNotEqual(digest(self.pack("seed", "--seed", 7)[0])["train-00000.h5"], first["train-00000.h5"])

    def test_killed(self):
        """By SIGKILL, at random moments; what is there then is gone on with, and the end is the same."""
        whole = digest(self.pack("whole", "--max-side", 64)[0])
        begin = time.monotonic()
        self.pack("timed", "--max-side", 64)
        seconds, out, rng = time.monotonic() - begin, self.work / "killed", random.Random(3)
        command = [TESKD, "data", "pack", "--from", str(self.images), "--out", str(out), "--max-side", "64"]
        for _ in range(10):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
            time.sleep(rng.uniform(0, seconds))
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.expect(run(*command[1:]))
        self.assertEqual(digest(out), whole)

    def test_flipped_bits(self):
        out, _ = self.pack("shards")
        rng = random.Random(5)
        for name in ("train-00000.h5", "val-00000.h5"):
            path = out / name
            whole = path.read_bytes()
            for at in [0, 100, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(12))]:
                damaged = bytearray(whole)
                damaged[at] ^= 1 << rng.randrange(8)
                path.write_bytes(damaged)
                result = run("data", "check", out)
                self.assertEqual(result.code, 1, f"{name}, byte {at}: {result}")
                self.assertIn(str(out), result.err)
            path.write_bytes(whole[:-1])
            self.assertEqual(run("data", "check", out).code, 1)
            path.unlink()
            self.assertIn(name, run("data", "check", out).err)
            path.write_bytes(whole)
        self.expect(run("data", "check", out))

    def test_lists(self):
        paths = sorted((self.images / "train").rglob("*.*"))
        listing = self.work / "train.txt"
        listing.write_text("".join(f"{path.relative_to(self.images)} {path.parent.name}\n" for path in reversed(paths)))
        out = self.work / "listed"
        self.expect(run("data", "pack", "--train-list", listing, "--root", self.images, "--out", out))
        with h5py.File(out / "train-00000.h5") as listed, h5py.File(self.pack("shards")[0] / "train-00000.h5") as packed:
            for key in ("position", "label", "checksum"):
                order = listed["position"][:].argsort(), packed["position"][:].argsort()
                self.assertEqual(list(listed[key][:][order[0]]), list(packed[key][:][order[1]]), key)
        listing.write_text("nothing\n")
        self.assertIn("train.txt: line 1", run("data", "pack", "--train-list", listing, "--out", out).err)

    def test_cifar(self):
        cifar = self.work / "cifar"
        self.expect(run("data", "synth", "--out", cifar, "--train-images", 50, "--test-images", 10))
        out, said = self.pack("shards", images=cifar)
        self.assertIn("50 training and 10 validation images of 10 classes", said.out)
        self.expect(run("data", "check", out, "--deep"))

    def test_what_is_no_image(self):
        images = self.work / "images"
        subprocess.run(["cp", "-r", self.images, images], check=True)
        bad = images / "train/disc/bad.jpg"
        bad.write_bytes(b"this is no image")
        out, said = self.pack("shards", images=images)
        self.assertIn("disc/bad.jpg", said.err)
        self.expect(run("data", "check", out, "--deep"))
        result = self.pack("other", "--on-bad", "fail", images=images, code=1)[1]
        self.assertIn("disc/bad.jpg", result.err)

    def test_usage(self):
        for arguments, expected in ((("data", "pack"), "--out DIR"), (("data", "check"), "takes DIR"),
                                    (("data", "nothing"), "one of: pack, check, show, unpack, synth"),
                                    (("data", "pack", "--from", self.work, "--out", self.work / "x"), "holds nothing"),
                                    (("data", "check", self.work), "manifest.json")):
            result = run(*arguments)
            self.assertIn(result.code, (1, 2), str(result))
            self.assertIn(expected, result.err)


load_tests = enough_under_sanitizers("Packing.test_there_and_back", "Packing.test_what_is_no_image", "Packing.test_lists",
                                     "Packing.test_cifar")


if __name__ == "__main__":
    unittest.main()
