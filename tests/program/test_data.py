"""Data that are missing or damaged: the message names file and record, comes once, and nothing hangs."""

import os
import shutil
import unittest

from program import SMALL, ProgramTest, run, settings

RECORD = 1 + 3 * 32 * 32


class Damage(ProgramTest):
    def copy(self):
        folder = self.path("data")
        shutil.copytree(self.data, folder)
        return folder

    def refuse(self, folder, *words, ranks=1, **changes):
        values = {**SMALL, "data.path": folder, "output.dir": self.path("run"), "train.max_steps": 2, **changes}
        result = run("train", *settings(values), ranks=ranks, timeout=120)
        self.assertIn(result.code, (1, 2), str(result))
        self.refused(result, *words)
        self.assertFalse(os.path.exists(self.path("run", "last.h5")))

    def refuse_on_1_and_2_ranks(self, folder, *words, **changes):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.refuse(folder, *words, ranks=ranks, **changes)

    def test_no_path(self):
        self.refuse_on_1_and_2_ranks("", "data.path", "data_batch_1.bin")

    def test_missing_folder(self):
        folder = self.path("nowhere")
        self.refuse_on_1_and_2_ranks(folder, f"{folder}/data_batch_1.bin")

    def test_missing_file(self):
        folder = self.copy()
        os.remove(f"{folder}/data_batch_4.bin")
        self.refuse_on_1_and_2_ranks(folder, f"{folder}/data_batch_4.bin")

    def test_other_kind(self):
        self.refuse_on_1_and_2_ranks(self.data, "CIFAR-100", f"{self.data}/train.bin", **{"data.kind": "cifar100"})

    def test_truncated_file(self):
        folder = self.copy()
        os.truncate(f"{folder}/data_batch_2.bin", 7 * RECORD + 1000)
        self.refuse_on_1_and_2_ranks(folder, f"{folder}/data_batch_2.bin", f"{7 * RECORD + 1000} bytes", "record 7",
                                     f"offset {7 * RECORD}")

    def test_truncated_test_file(self):
        folder = self.copy()
        os.truncate(f"{folder}/test_batch.bin", 59 * RECORD + 1)
        self.refuse(folder, f"{folder}/test_batch.bin", "record 59")

    def test_empty_file(self):
        folder = self.copy()
        os.truncate(f"{folder}/data_batch_5.bin", 0)
        self.refuse(folder, f"{folder}/data_batch_5.bin", "0 bytes")

    def test_surplus_bytes(self):
        folder = self.copy()
        with open(f"{folder}/data_batch_1.bin", "ab") as file:
            file.write(b"more")
        self.refuse(folder, f"{folder}/data_batch_1.bin", f"{40 * RECORD + 4} bytes", f"{RECORD} bytes")

    def test_label_out_of_range(self):
        folder = self.copy()
        with open(f"{folder}/data_batch_3.bin", "r+b") as file:
            file.seek(11 * RECORD)
            file.write(bytes([10]))
        self.refuse_on_1_and_2_ranks(folder, f"{folder}/data_batch_3.bin", "record 11", "label 10", "0 to 9")

    def test_too_few_images_for_the_ranks(self):
        self.refuse(self.data, "last batch of 1", "2 ranks", ranks=2, **{"data.train_images": 41})

    def test_unwritable_output(self):
        with open(self.path("file"), "w", encoding="utf-8"):
            pass
        for ranks in (1, 2):
            self.refuse(self.data, "output.dir", self.path("file"), ranks=ranks,
                        **{"output.dir": self.path("file", "run")})


class Synth(ProgramTest):
    def test_reproducible_and_balanced(self):
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            self.run_code(0, "data", "synth", "--out", self.path(name), "--train-images", 50, "--test-images", 20,
                          "--seed", seed)
        for file in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            contents = {}
            for name in "abc":
                with open(self.path(name, file), "rb") as opened:
                    contents[name] = opened.read()
            self.assertEqual(contents["a"], contents["b"])
            self.assertNotEqual(contents["a"], contents["c"])
            self.assertEqual(len(contents["a"]), (20 if file.startswith("test") else 10) * RECORD)
            labels = contents["a"][::RECORD]
            self.assertEqual(sorted(set(labels)), list(range(10)))

    def test_unwritable(self):
        with open(self.path("file"), "w", encoding="utf-8"):
            pass
        result = run("data", "synth", "--out", self.path("file", "deeper"), ranks=2)
        self.assertEqual(result.code, 1)
        self.refused(result, self.path("file", "deeper"))

    def test_subfolder_of_the_official_archive(self):
        shutil.copytree(self.data, self.path("cifar-10-batches-bin"))
        self.train("run", {"data.path": self.folder, "train.max_steps": 1})
        self.assertTrue(os.path.exists(self.path("run", "last.h5")))


if __name__ == "__main__":
    unittest.main()
