"""What happens between gradients and weights: micro-batches, clipping, averaged weights, the learning rate's batch."""

import unittest

import numpy

from program import ProgramTest, enough_under_sanitizers, events, relative_l2

# In float64, so that nothing hides in rounding; the batches divide, so micro-batches and ranks have the same images.
EXACT = {"run.device": "reference", "train.epochs": 2, "data.train_images": 120, "train.batch": 60}


class Accumulation(ProgramTest):
    def trained(self, tensors):
        """What gradients reach: parameters and momentum, not running statistics, which see micro-batches in turn."""
        return {name: values for name, values in tensors.items()
                if name.startswith(("weights/", "momentum/")) and "running_" not in name}

    def test_parts_are_ranks(self):
        # Three micro-batches on one rank and three ranks with a share each normalise the same images together.
        extra = {**EXACT, "train.clip_norm": 0.5, "train.label_smoothing": 0.1}
        self.train("micro", {**extra, "train.accumulate": 3})
        self.train("ranks", extra, ranks=3)
        micro, ranks = (self.trained(self.last(name).tensors) for name in ("micro", "ranks"))
        self.assertEqual(set(micro), set(ranks))
        for name, values in ranks.items():
            if numpy.linalg.norm(values) > 1e-12:  # a bias before a norm has no gradient but rounding
                self.assertLess(relative_l2(micro[name], values), 1e-9, name)
        for a, b in zip(events(self.path("micro"), "step"), events(self.path("ranks"), "step")):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=1e-9)

    def test_incomplete_last_batch(self):
        # 100 images in batches of 60 and micro-batches of 20: a last batch of two. With 110, its third has 10.
        for images, steps in ((100, 4), (110, 4), (130, 6)):
            name = str(images)
            self.train(name, {**EXACT, "data.train_images": images, "train.accumulate": 3})
            self.assertEqual(self.last(name).attributes["steps_done"], steps)
            self.assertTrue(all(event["train_top1"] is not None for event in events(self.path(name), "epoch")))

    def test_resume_in_mid_epoch(self):
        extra = {**EXACT, "train.accumulate": 2, "train.ema_decay": 0.9}
        self.train("straight", extra)
        self.train("resumed", {**extra, "train.max_steps": 3})
        self.train("resumed", extra, resume="auto")
        straight, resumed = self.last("straight").tensors, self.last("resumed").tensors
        self.assertFalse([name for name in straight if name.startswith("accumulated/")])
        for name, values in straight.items():
            self.assertEqual(values.tobytes(), resumed[name].tobytes(), name)

    def test_refusal(self):
        self.refused(self.train("run", {"train.accumulate": 3}, code=2), "train.batch")


class Update(ProgramTest):
    def one_step(self, name, changes):
        self.train(name, {**EXACT, "train.max_steps": 1, "train.weight_decay": 0, **changes})
        return self.last(name).tensors

    def momentum(self, tensors):
        """After one step from rest it is the gradient."""
        return numpy.concatenate([tensors[name].ravel() for name in sorted(tensors) if name.startswith("momentum/")])

    def test_clipping(self):
        free = self.momentum(self.one_step("free", {}))
        norm = numpy.linalg.norm(free)
        loose = self.momentum(self.one_step("loose", {"train.clip_norm": 2 * norm}))
        tight = self.momentum(self.one_step("tight", {"train.clip_norm": norm / 4}))
        self.assertEqual(free.tobytes(), loose.tobytes())
        self.assertAlmostEqual(numpy.linalg.norm(tight), norm / 4, delta=1e-9 * norm)
        self.assertLess(relative_l2(4 * tight, free), 1e-9)

    def test_averages(self):
        decay = 0.75
        start = self.one_step("start", {"train.lr": 0, "train.ema_decay": decay})
        step = self.one_step("step", {"train.ema_decay": decay})
        names = [name for name in step if name.startswith("ema/") and "running_" not in name]
        self.assertTrue(names)
        for name in names:
            weight = "weights/" + name[len("ema/"):]
            expected = decay * start[weight] + (1 - decay) * step[weight]
            self.assertLess(numpy.abs(step[name] - expected).max(), 1e-12, name)
        self.refused(self.train("run", {"eval.ema": "yes"}, code=2), "eval.ema")

    def test_learning_rate_batch(self):
        self.one_step("scaled", {"train.lr_batch": 30})
        self.one_step("plain", {})
        scaled, plain = (events(self.path(name), "step")[0]["lr"] for name in ("scaled", "plain"))
        self.assertAlmostEqual(scaled, 2 * plain, delta=1e-15)


load_tests = enough_under_sanitizers("Accumulation.test_parts_are_ranks", "Accumulation.test_refusal",
                                     "Update.test_clipping", "Update.test_averages")


if __name__ == "__main__":
    unittest.main()
