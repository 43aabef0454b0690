"""teskd eval beyond its table: predictions, classes, mirror images, averaged weights, the choice of data."""

import os
import re
import shutil
import unittest

import h5py
import numpy

from program import ProgramTest, enough_under_sanitizers, events, reseal, settings
from test_training import HEADS, tables

IMAGES = 60  # of the test set; image i has class i % 10


def softmax(logits):
    e = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def ahead(scores, labels):
    """Classes that lead the label's or tie with it."""
    return (scores >= scores[numpy.arange(len(labels)), labels][:, None]).sum(axis=1) - 1


class EvalTest(ProgramTest):
    """One trained network for all tests of a class."""

    changes = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls("run_code")
        test.folder = cls.class_folder
        test.train("trained", {"train.epochs": 3, "data.augment": "no", **cls.changes})
        cls.checkpoint = os.path.join(cls.class_folder, "trained", "last.h5")

    def evaluate(self, *options, ranks=1, checkpoint=None, code=0, **changes):
        changes = {"run.threads": 1, **changes}
        return self.run_code(code, "eval", "--checkpoint", checkpoint or self.checkpoint, *options, *settings(changes),
                             ranks=ranks)

    def predictions(self, *options, **keywords):
        """Columns of the file, and the result."""
        path = self.path("predictions.csv")
        result = self.evaluate("--predictions", path, *options, **keywords)
        with open(path, encoding="utf-8") as file:
            names = file.readline().strip().split(",")
            table = numpy.loadtxt(file, delimiter=",", ndmin=2)
        os.remove(path)
        self.assertEqual(table.shape[1], len(names))
        return names, table, result


class Predictions(EvalTest):
    def test_columns_and_figures(self):
        names, table, result = self.predictions("--logits")
        self.assertEqual(names, ["index", "label", "predicted", "correct", "probability"]
                         + [f"logit_{k}" for k in range(10)])
        index, label, predicted, correct, probability = table[:, :5].T
        logits = table[:, 5:]
        label = label.astype(int)
        self.assertEqual(list(index), list(range(IMAGES)))
        self.assertEqual(list(label), [i % 10 for i in range(IMAGES)])
        self.assertEqual(list(predicted), list(logits.argmax(axis=1)))
        self.assertEqual(list(correct), list(ahead(logits, label) == 0))
        numpy.testing.assert_allclose(probability, softmax(logits).max(axis=1), rtol=1e-6)
        teacher = tables(result.out)[0]["teacher"]
        self.assertEqual(teacher[0], f"{100 * correct.mean():.2f}")
        self.assertEqual(teacher[1], f"{100 * (ahead(logits, label) < 5).mean():.1f}")
        loss = -numpy.log(softmax(logits)[numpy.arange(IMAGES), label]).mean()
        self.assertAlmostEqual(float(teacher[2]), loss, delta=1e-4)
        self.assertGreater(len(set(predicted)), 1)

    def test_ranks_and_batches(self):
        _, expected, _ = self.predictions("--logits")
        for ranks in (1, 2, 3):
            for batch in (7, 25, 64):
                _, table, _ = self.predictions("--logits", ranks=ranks, **{"eval.batch": batch})
                self.assertEqual(table[:, :2].tolist(), expected[:, :2].tolist())
                numpy.testing.assert_allclose(table[:, 4:], expected[:, 4:], rtol=1e-4, atol=1e-5)
        _, table, _ = self.predictions(ranks=3, **{"data.test_images": 2})
        self.assertEqual(table[:, 0].tolist(), [0, 1])

    def test_devices(self):
        _, cpu, _ = self.predictions("--logits")
        _, reference, _ = self.predictions("--logits", "--device", "reference")
        numpy.testing.assert_allclose(cpu[:, 4:], reference[:, 4:], rtol=1e-3, atol=1e-4)

    def test_teacher_only(self):
        _, all_heads, _ = self.predictions("--logits")
        _, alone, result = self.predictions("--logits", "--teacher-only", ranks=2)
        self.assertEqual(list(tables(result.out)[0]), ["teacher"])
        numpy.testing.assert_allclose(alone[:, 4:], all_heads[:, 4:], rtol=1e-4, atol=1e-5)

    def test_classes(self):
        names, table, result = self.predictions("--logits", "--per-class", ranks=2)
        self.assertEqual(names[0], "index")
        label = table[:, 1].astype(int)
        behind = ahead(table[:, 5:], label)
        rows = re.findall(r"^ +(\d+) +(\d+) +([\d.]+)% +([\d.]+)%  (\S.*)$", result.out, re.MULTILINE)
        with open(os.path.join(self.data, "batches.meta.txt"), encoding="utf-8") as file:
            classes = file.read().split("\n")
        self.assertEqual(rows, [(str(k), str((label == k).sum()), f"{100 * (behind[label == k] < 1).mean():.2f}",
                                 f"{100 * (behind[label == k] < 5).mean():.2f}", classes[k]) for k in range(10)])
        # A class without images has no row.
        result = self.evaluate("--per-class", **{"data.test_images": 4})
        self.assertEqual(len(re.findall(r"^ +\d+ +1 +[\d.]+% +[\d.]+%  \S", result.out, re.MULTILINE)), 4)

    def test_refusals(self):
        self.refused(self.evaluate("--logits", code=2), "--logits", "--predictions")
        self.refused(self.evaluate("--logits", "--predictions", self.path("x.csv"), code=2, **{"eval.flip": "yes"}),
                     "--logits", "eval.flip")
        path = self.path("none", "x.csv")
        self.refused(self.evaluate("--predictions", path, code=1, ranks=2), path, "No such file")
        # What was there stays until there is a whole new file.
        path = self.path("kept.csv")
        with open(path, "w", encoding="utf-8") as file:
            file.write("kept")
        with open(os.path.join(self.folder, "bad.h5"), "wb") as file:
            file.write(b"no checkpoint")
        self.evaluate("--predictions", path, checkpoint=self.path("bad.h5"), code=1)
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "kept")
        self.assertEqual([name for name in os.listdir(self.folder) if ".tmp." in name], [])


class Flip(EvalTest):
    """Held against a second test set that holds the mirror images."""

    changes = {"eval.flip": "yes"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.mirrored = os.path.join(cls.class_folder, "mirrored")
        shutil.copytree(cls.data, cls.mirrored)
        path = os.path.join(cls.mirrored, "test_batch.bin")
        records = numpy.fromfile(path, dtype=numpy.uint8).reshape(-1, 1 + 3072)
        images = records[:, 1:].reshape(-1, 3, 32, 32)
        records[:, 1:] = images[:, :, :, ::-1].reshape(-1, 3072)
        records.tofile(path)

    def test_teacher(self):
        _, plain, _ = self.predictions("--logits")
        _, other, _ = self.predictions("--logits", **{"data.path": self.mirrored})
        self.assertGreater(abs(plain[:, 5:] - other[:, 5:]).max(), 1e-3)
        probabilities = (softmax(plain[:, 5:]) + softmax(other[:, 5:])) / 2
        label = plain[:, 1].astype(int)
        for ranks in (1, 2):
            _, both, result = self.predictions(ranks=ranks, **{"eval.flip": "yes", "eval.batch": 25})
            self.assertEqual(both[:, 1].tolist(), plain[:, 1].tolist())
            self.assertEqual(both[:, 2].tolist(), probabilities.argmax(axis=1).tolist())
            self.assertEqual(both[:, 3].tolist(), (ahead(probabilities, label) == 0).tolist())
            numpy.testing.assert_allclose(both[:, 4], probabilities.max(axis=1), rtol=1e-4)
            teacher = tables(result.out)[0]["teacher"]
            loss = -numpy.log(probabilities[numpy.arange(IMAGES), label]).mean()
            self.assertEqual(teacher[:2], [f"{100 * (ahead(probabilities, label) < 1).mean():.2f}",
                                           f"{100 * (ahead(probabilities, label) < 5).mean():.1f}"])
            self.assertAlmostEqual(float(teacher[2]), loss, delta=2e-4)

    def test_during_training(self):
        epoch = events(os.path.join(self.class_folder, "trained"), "epoch")[-1]
        table = tables(self.evaluate(**{"eval.flip": "yes"}).out)[0]
        for head, name in enumerate(HEADS):
            self.assertEqual(table[name][:2], [f"{100 * epoch['test_top1'][head]:.2f}",
                                               f"{100 * epoch['test_top5'][head]:.1f}"])
            self.assertAlmostEqual(float(table[name][2]), epoch["test_cross_entropy"][head], delta=1e-4)

    def test_students(self):
        one = tables(self.evaluate().out)[0]
        other = tables(self.evaluate(**{"data.path": self.mirrored}).out)[0]
        both = tables(self.evaluate(**{"eval.flip": "yes"}).out)[0]
        turned = tables(self.evaluate(**{"eval.flip": "yes", "data.path": self.mirrored}).out)[0]
        self.assertEqual(list(both), list(HEADS))
        for head in HEADS:
            numbers = [[float(word) for word in rows[head]] for rows in (one, other, both, turned)]
            numpy.testing.assert_allclose(numbers[2], numbers[3], atol=2e-2)
            # -log of a mean is at most the mean of -log
            self.assertLess(numbers[2][2], (numbers[0][2] + numbers[1][2]) / 2 + 1e-4)
            for column in range(3, len(numbers[0])):
                mean = (numbers[0][column] + numbers[1][column]) / 2
                self.assertAlmostEqual(numbers[2][column], mean, delta=1e-2)


class Average(EvalTest):
    changes = {"train.ema_decay": 0.9, "eval.ema": "yes"}

    def test_average_is_evaluated(self):
        """The same as a checkpoint whose weights are the averages."""
        path = self.path("swapped.h5")
        with h5py.File(self.checkpoint) as old, h5py.File(path, "w", libver="latest") as new:
            old.copy("ema", new, name="weights")
            for key, value in old.attrs.items():
                new.attrs[key] = value
        reseal(path)
        _, expected, result = self.predictions("--logits", checkpoint=path)
        for ranks in (1, 2):
            _, average, averaged = self.predictions("--logits", ranks=ranks, **{"eval.ema": "yes"})
            numpy.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-5)
            self.assertEqual(tables(averaged.out)[0]["student1"][:2], tables(result.out)[0]["student1"][:2])
        _, current, _ = self.predictions("--logits")
        self.assertGreater(abs(current[:, 5:] - expected[:, 5:]).max(), 1e-2)

    def test_training_evaluates_the_average(self):
        epoch = events(os.path.join(self.class_folder, "trained"), "epoch")[-1]
        table = tables(self.evaluate(**{"eval.ema": "yes"}).out)[0]
        for head, name in enumerate(HEADS):
            self.assertEqual(table[name][0], f"{100 * epoch['test_top1'][head]:.2f}")
            self.assertAlmostEqual(float(table[name][2]), epoch["test_cross_entropy"][head], delta=1e-4)

    def test_without_average(self):
        self.train("none", {"train.max_steps": 1})
        path = self.path("none", "last.h5")
        result = self.evaluate(checkpoint=path, code=2, ranks=2, **{"eval.ema": "yes"})
        self.refused(result, "eval.ema", path, "train.ema_decay")


class Data(EvalTest):
    """The network is the checkpoint's, the data too unless the command line has others."""

    changes = {"data.test_images": 40}

    def count(self, **changes):
        return int(re.search(r"^(\d+) test images$", self.evaluate(**changes).out, re.MULTILINE)[1])

    def test_which(self):
        self.assertEqual(self.count(), 40)
        self.assertEqual(self.count(**{"data.test_images": 7}), 7)
        copy = shutil.copytree(self.data, self.path("copy"))
        self.assertEqual(self.count(**{"data.path": copy}), 60)
        self.assertEqual(self.count(**{"data.kind": "synthetic"}), 1024)
        self.assertEqual(self.count(**{"data.kind": "synthetic", "data.test_images": 9}), 9)
        path = self.path("data.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write("[model]\nnetwork = cifarresnet18\n[data]\ntest_images = 11\n")
        result = self.evaluate("--config", path)
        self.assertIn("\n11 test images\n", result.out)

    def test_classes(self):
        for ranks in (1, 2):
            result = self.evaluate(code=2, ranks=ranks, **{"data.kind": "cifar100", "data.path": self.data})
            self.refused(result, "10 classes", "CIFAR-100", self.checkpoint)

    def test_more_classes_than_the_data(self):
        self.train("more", {"model.classes": 13, "train.max_steps": 1})
        names, table, _ = self.predictions("--logits", checkpoint=self.path("more", "last.h5"))
        self.assertEqual((names[-1], len(table)), ("logit_12", 60))
        result = self.evaluate(checkpoint=self.path("more", "last.h5"), code=2, **{"data.kind": "cifar100"})
        self.refused(result, "13 classes", "100")


load_tests = enough_under_sanitizers("Predictions.test_columns_and_figures", "Predictions.test_refusals",
                                     "Flip.test_during_training", "Average.test_average_is_evaluated", "Data")


if __name__ == "__main__":
    unittest.main()
