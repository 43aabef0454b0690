"""What a training does: independent of ranks and threads, every image counted, every loss reported, and it learns."""

import math
import re
import unittest

from program import ProgramTest, enough_under_sanitizers, events, relative_l2, settings

HEADS = ("teacher", "student3", "student2", "student1")
LOSS_GROUPS = {"cross_entropy": 4, "kd": 3, "feature": 3, "top1": 4, "top5": 4}

# Two epochs of 24, 24 and 18 images: the last batch divides among 2 ranks, but not among 4.
UNEVEN = {"train.batch": 24, "data.train_images": 66, "run.sync_bn": "yes"}


def tables(text, which="test"):
    """The rows of each table of heads in the output, of training or of the test: {head: [numbers as printed]}."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if words[1:] == ["top-1", "top-5", "CE", "KD", "feature"]:
            found.append((words[0], {}))
        elif words and words[0] in HEADS and line.startswith("  "):
            found[-1][1][words[0]] = [word.rstrip("%") for word in words[1:]]
    return [rows for heading, rows in found if heading == which]


def table_row(event, of, head):
    """What a table has to say of a head, by a record of metrics.jsonl."""
    row = [f"{100 * event[of + '_top1'][head]:.2f}", f"{100 * event[of + '_top5'][head]:.1f}",
           f"{event[of + '_cross_entropy'][head]:.4f}"]
    if head > 0:
        row += [f"{event[of + '_kd'][head - 1]:.4f}", f"{event[of + '_feature'][head - 1]:.2f}"]
    return row


class Ranks(ProgramTest):
    """With synchronised batch normalisation the number of ranks changes nothing but rounding."""

    def compare(self, changes, bound):
        changes = {**UNEVEN, **changes}
        self.train("1", changes)
        one = self.last("1")
        for ranks in (2, 4):
            self.train(str(ranks), changes, ranks=ranks)
            several = self.last(str(ranks))
            self.assertEqual(several.attributes["ranks"], ranks)
            self.assertEqual(several.attributes["steps_done"], one.attributes["steps_done"])
            error = relative_l2(several.weights(), one.weights())
            print(f"{changes['run.device']}, {one.attributes['steps_done']} steps: weights and statistics of {ranks} "
                  f"ranks against 1: {error:.1e}")
            self.assertLess(error, bound)
        return one

    def compare_epochs(self, bound):
        for ranks in (2, 4):
            for a, b in zip(events(self.path(str(ranks)), "epoch"), events(self.path("1"), "epoch")):
                for group in ("train_cross_entropy", "train_kd", "train_feature", "test_cross_entropy", "test_feature"):
                    for x, y in zip(a[group], b[group]):
                        self.assertAlmostEqual(x / y, 1, delta=bound, msg=group)

    def test_float64(self):
        one = self.compare({"run.device": "reference"}, 1e-10)
        self.assertEqual(one.attributes["steps_done"], 6)
        self.compare_epochs(1e-8)

    # In float32 a rounding error decides on which side of zero a ReLU unit falls. One unit is a thousandth of a small
    # gradient, and every later step inherits it times the learning rate.
    def test_float32_first_step(self):
        self.compare({"run.device": "cpu", "train.max_steps": 1}, 2e-5)

    def test_float32(self):
        one = self.compare({"run.device": "cpu", "train.lr": 5e-4}, 1e-4)
        self.assertEqual(one.attributes["steps_done"], 6)
        self.compare_epochs(1e-2)

    def test_without_synchronised_bn_they_differ(self):
        changes = {**UNEVEN, "run.sync_bn": "no"}
        self.train("1", changes)
        self.train("2", changes, ranks=2)
        self.assertGreater(relative_l2(self.last("2").weights(), self.last("1").weights()), 1e-3)

    def test_batch_must_divide(self):
        result = self.train("run", {"train.batch": 21}, ranks=2, code=2)
        self.refused(result, "train.batch: 21 images do not divide among 2 ranks")

    def test_repeats_bit_for_bit(self):
        for ranks in (1, 2):
            for name in ("first", "second"):
                self.train(f"{name}{ranks}", ranks=ranks, changes={"train.max_steps": 3})
            first, second = self.last(f"first{ranks}"), self.last(f"second{ranks}")
            for tensor, values in first.tensors.items():
                self.assertEqual(values.tobytes(), second.tensors[tensor].tobytes(), tensor)

    def test_exposed_communication(self):
        self.assertNotIn("communication", self.train("1", {"train.max_steps": 2}).out)
        self.assertNotIn("exposed_communication", events(self.path("1"), "step")[0])
        for sync_bn in ("no", "yes"):
            log = self.train(sync_bn, {"train.max_steps": 2, "run.sync_bn": sync_bn}, ranks=2).out
            shares = [event["exposed_communication"] for event in events(self.path(sync_bn), "step")]
            self.assertEqual([f"{100 * share:.1f}" for share in shares], re.findall(r"  communication ([\d.]+)%  ", log))
            for share in shares:
                self.assertTrue(0 < share < 1, shares)

    def test_seed(self):
        for seed in (0, 1):
            self.train(str(seed), {"train.seed": seed, "train.max_steps": 1})
        self.assertGreater(relative_l2(self.last("0").weights(), self.last("1").weights()), 0.1)


class Threads(ProgramTest):
    def test_threads_change_only_rounding(self):
        for threads in (1, 2):
            self.train(str(threads), {"run.threads": threads, "train.max_steps": 6, "train.lr": 5e-4})
        error = relative_l2(self.last("2").weights(), self.last("1").weights())
        print(f"weights of 2 threads against 1: {error:.1e}")
        self.assertLess(error, 1e-4)


class Steps(ProgramTest):
    def steps(self, name, changes, ranks=1):
        self.train(name, {"data.train_images": 70, "train.batch": 20, "train.epochs": 2, **changes}, ranks=ranks)
        return [(event["epoch"], event["step"], event["steps_done"]) for event in events(self.path(name), "step")]

    def test_last_batch_kept(self):
        expected = [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4), (2, 1, 5), (2, 2, 6), (2, 3, 7), (2, 4, 8)]
        self.assertEqual(self.steps("one", {}), expected)
        self.assertEqual(self.steps("two", {}, ranks=2), expected)

    def test_last_batch_dropped(self):
        self.assertEqual(self.steps("run", {"data.drop_last": "yes"}),
                         [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 4), (2, 2, 5), (2, 3, 6)])

    def test_smaller_set_than_a_batch(self):
        self.assertEqual(self.steps("run", {"train.batch": 100}), [(1, 1, 1), (2, 1, 2)])

    def test_max_steps(self):
        self.assertEqual(len(self.steps("run", {"train.max_steps": 5})), 5)
        last = self.last("run").attributes
        self.assertEqual((last["epoch"], last["step"], last["steps_done"]), (1, 1, 5))

    def test_learning_rate(self):
        self.train("run", {"data.train_images": 80, "train.epochs": 3, "train.schedule": "cosine", "train.lr": 0.2,
                           "train.min_lr": 0.02, "train.warmup_epochs": 1})
        rates = [event["lr"] for event in events(self.path("run"), "step")]
        for step in range(4):
            self.assertAlmostEqual(rates[step], 0.2 * (step + 1) / 5)
        for step in range(4, 12):
            self.assertAlmostEqual(rates[step], 0.02 + 0.18 * (1 + math.cos(math.pi * (step - 4) / 8)) / 2)


class Metrics(ProgramTest):
    weights = {"loss.ce_weight": 0.3, "loss.kd_weight": 0.7, "loss.feature_weight": 1e-3, "loss.teacher_weight": 1.5,
               "loss.student_weights": "1,0.5,0.25"}

    def joint(self, event, images):
        ce, kd, feature = (event["train_" + group] for group in ("cross_entropy", "kd", "feature"))
        return (0.3 * (1.5 * ce[0] + ce[1] + 0.5 * ce[2] + 0.25 * ce[3]) + 0.7 * sum(kd)
                + 1e-3 * images * sum(feature))

    def test_groups_and_joint_loss(self):
        for ranks in (1, 2):
            name = str(ranks)
            self.train(name, {**self.weights, "data.train_images": 70}, ranks=ranks)
            steps, epochs = events(self.path(name), "step"), events(self.path(name), "epoch")
            self.assertEqual((len(steps), len(epochs)), (8, 2))
            for event in steps + epochs:
                for group, count in LOSS_GROUPS.items():
                    values = event["train_" + group] + event.get("test_" + group, [])
                    self.assertEqual(len(values), count * (2 if event["event"] == "epoch" else 1), group)
                    self.assertTrue(all(math.isfinite(value) and value >= 0 for value in values), values)
            for i, event in enumerate(steps):
                self.assertAlmostEqual(event["loss"], self.joint(event, 10 if i % 4 == 3 else 20), delta=1e-9)

    def test_epoch_is_the_mean_of_its_steps(self):
        self.train("run", {"data.train_images": 70})
        steps = events(self.path("run"), "step")
        for number, epoch in enumerate(events(self.path("run"), "epoch")):
            mine = steps[4 * number:4 * number + 4]
            for group in LOSS_GROUPS:
                for head, value in enumerate(epoch["train_" + group]):
                    images = [20, 20, 20, 10]
                    mean = sum(n * step["train_" + group][head] for n, step in zip(images, mine)) / 70
                    self.assertAlmostEqual(value, mean, delta=1e-9 * (1 + mean))

    def test_epoch_table(self):
        result = self.train("run", {"train.epochs": 3, "eval.every": 2, "data.train_images": 60})
        epochs = events(self.path("run"), "epoch")
        self.assertEqual(["test_top1" in event for event in epochs], [False, True, True])
        for of, heading, records in (("train", "training", epochs), ("test", "test", epochs[1:])):
            printed = tables(result.out, heading)
            self.assertEqual(len(printed), len(records), heading)
            for event, table in zip(records, printed):
                self.assertEqual(table, {name: table_row(event, of, head) for head, name in enumerate(HEADS)})
        alone = self.run_code(0, "eval", "--checkpoint", self.path("run", "last.h5"))
        self.assertEqual(tables(alone.out), tables(result.out)[-1:])
        self.assertEqual(tables(alone.out, "training"), [])
        best = max(event["test_top1"][0] for event in epochs if "test_top1" in event)
        self.assertIn(f"best teacher top-1 {100 * best:.2f}%", result.out)
        self.assertAlmostEqual(self.last("run").attributes["best_top1"], best)

    def test_learns(self):
        self.train("run", {"train.epochs": 30, "model.width": 8, "data.train_images": 40, "data.augment": "no",
                           "train.schedule": "cosine", "eval.every": 0, "log.every": 5})
        epochs = events(self.path("run"), "epoch")
        print("losses:", *(f"{event['loss']:.2f}" for event in epochs))
        self.assertLess(epochs[-1]["loss"], 0.5 * epochs[0]["loss"])
        for head in range(4):
            self.assertLess(epochs[-1]["train_cross_entropy"][head], 0.6 * epochs[0]["train_cross_entropy"][head])
            self.assertGreater(epochs[-1]["train_top1"][head], 0.9)

    def test_loss_that_is_no_number(self):
        result = self.train("run", {"train.lr": 1000, "train.epochs": 20, "model.method": "plain",
                                    "train.weight_decay": 1}, code=1, ranks=2)
        self.refused(result, "no longer finite", "train.lr")


class Plain(ProgramTest):
    def test_plain(self):
        self.train("run", {"model.method": "plain", "data.train_images": 60})
        for event in events(self.path("run"), "epoch"):
            self.assertEqual(len(event["train_top1"]), 1)
            self.assertEqual(event["train_kd"] + event["train_feature"], [])
            self.assertAlmostEqual(event["loss"], event["train_cross_entropy"][0])
        names = set(self.last("run").tensors)
        self.assertIn("weights/fc.weight", names)
        self.assertFalse([name for name in names if "laterals" in name or "fc_b" in name])
        result = self.run_code(0, "eval", "--checkpoint", self.path("run", "last.h5"))
        self.assertEqual(list(tables(result.out)[0]), ["teacher"])


class Evaluation(ProgramTest):
    """Each test image is counted once, whatever the ranks and the batch."""

    def evaluate(self, *options, ranks=1, **changes):
        values = {"data.kind": "cifar10", "data.path": self.data, "run.threads": 1, **changes}
        result = self.run_code(0, "eval", "--checkpoint", self.path("run", "last.h5"), *options, *settings(values),
                               ranks=ranks)
        return int(re.search(r"^(\d+) test images$", result.out, re.MULTILINE)[1]), tables(result.out)[0]

    def test_counts_and_accuracy(self):
        self.train("run", {"train.epochs": 1})
        epoch = events(self.path("run"), "epoch")[0]
        expected = {name: [f"{100 * epoch['test_top1'][head]:.2f}", f"{100 * epoch['test_top5'][head]:.1f}"]
                    for head, name in enumerate(HEADS)}
        for ranks in (1, 2, 3):
            for batch in (25, 7):
                count, table = self.evaluate(ranks=ranks, **{"eval.batch": batch})
                self.assertEqual(count, 60)
                self.assertEqual({name: row[:2] for name, row in table.items()}, expected)
                for head, name in enumerate(HEADS):
                    self.assertAlmostEqual(float(table[name][2]), epoch["test_cross_entropy"][head], delta=2e-4)
            count, table = self.evaluate("--teacher-only", ranks=ranks, **{"eval.batch": 25})
            self.assertEqual((count, list(table)), (60, ["teacher"]))
            self.assertEqual(table["teacher"][:2], expected["teacher"])
        # Fewer images than ranks: one of them has nothing to do.
        one, three = (self.evaluate(ranks=ranks, **{"data.test_images": 2}) for ranks in (1, 3))
        self.assertEqual(three, one)
        self.assertEqual(three[0], 2)

    def test_defaults_are_the_checkpoints(self):
        self.train("run", {"train.epochs": 1, "data.test_images": 40}, ranks=2)
        epoch = events(self.path("run"), "epoch")[0]
        for device in ("cpu", "reference"):
            result = self.run_code(0, "eval", "--checkpoint", self.path("run", "last.h5"), "--device", device)
            self.assertIn("40 test images", result.out)
            self.assertEqual(tables(result.out)[0]["student2"][0], f"{100 * epoch['test_top1'][2]:.2f}")

    def test_refusals(self):
        result = self.run_code(1, "eval", "--checkpoint", self.path("none.h5"), ranks=2)
        self.refused(result, self.path("none.h5"))


load_tests = enough_under_sanitizers("Ranks.test_float32_first_step", "Ranks.test_batch_must_divide", "Threads",
                                     "Steps.test_last_batch_kept", "Steps.test_smaller_set_than_a_batch",
                                     "Metrics.test_groups_and_joint_loss", "Metrics.test_epoch_table",
                                     "Metrics.test_loss_that_is_no_number", "Plain",
                                     "Evaluation.test_defaults_are_the_checkpoints", "Evaluation.test_refusals")


if __name__ == "__main__":
    unittest.main()
