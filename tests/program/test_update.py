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


class Lars(ProgramTest):
    """You, Gitman, Ginsburg, arXiv 1708.03888, in NumPy: each tensor of more than one dimension is a layer."""

    ETA, RATE, DECAY = 0.02, 0.4, 0.05
    LARS = {"train.optimizer": "lars", "train.lars_eta": ETA, "train.lr": RATE, "train.weight_decay": DECAY,
            "train.decay_norm_and_bias": "no", "train.nesterov": "no"}

    def one_step(self, name, changes):
        self.train(name, {**EXACT, "train.max_steps": 1, **changes})
        return self.last(name).tensors

    def gradients(self):
        """Of the first step, which are the momentum of SGD after it; and the weights before it."""
        tensors = self.one_step("sgd", {"train.lr": 0, "train.weight_decay": 0})
        names = [name[len("momentum/"):] for name in tensors if name.startswith("momentum/")]
        return ({name: tensors["momentum/" + name] for name in names},
                {name: tensors["weights/" + name] for name in names})

    def expected(self, gradient, weight):
        if weight.ndim == 1:
            return self.RATE * gradient
        size = numpy.linalg.norm(weight)
        trust = self.ETA * size / (numpy.linalg.norm(gradient) + self.DECAY * size)
        return self.RATE * trust * (gradient + self.DECAY * weight)

    def test_first_step(self):
        gradients, weights = self.gradients()
        norm = numpy.sqrt(sum(numpy.sum(g ** 2) for g in gradients.values()))
        for name, factor, changes in (("free", 1, {}), ("clipped", 0.25, {"train.clip_norm": norm / 4})):
            found = self.one_step(name, {**self.LARS, **changes})
            self.assertTrue(any(weight.ndim > 1 for weight in weights.values()))
            for tensor, weight in weights.items():
                expected = self.expected(factor * gradients[tensor], weight)
                with self.subTest(run=name, tensor=tensor):
                    numpy.testing.assert_allclose(found["momentum/" + tensor], expected, rtol=1e-11, atol=1e-14)
                    numpy.testing.assert_allclose(found["weights/" + tensor], weight - expected, rtol=1e-11, atol=1e-14)

    def test_micro_batches_are_ranks(self):
        extra = {**EXACT, **self.LARS, "train.epochs": 1, "train.nesterov": "yes", "train.ema_decay": 0.9}
        self.train("micro", {**extra, "train.accumulate": 3})
        self.train("ranks", extra, ranks=3)
        micro, ranks = (self.last(name).tensors for name in ("micro", "ranks"))
        names = [name for name in ranks if name.startswith(("weights/", "ema/")) and "running_" not in name]
        self.assertTrue(any(name.startswith("ema/") for name in names))
        for name in names:
            self.assertLess(relative_l2(micro[name], ranks[name]), 1e-9, name)

    def test_resume(self):
        extra = {**self.LARS, "train.epochs": 1}
        self.train("straight", extra)
        self.train("resumed", {**extra, "train.max_steps": 4})
        self.refused(self.train("resumed", {"train.epochs": 1}, resume="auto", code=2), "train.optimizer: sgd",
                     "momentum", "that of lars")
        self.train("resumed", extra, resume="auto")
        straight, resumed = self.last("straight").tensors, self.last("resumed").tensors
        for name, values in straight.items():
            self.assertEqual(values.tobytes(), resumed[name].tobytes(), name)
        longer = self.train("resumed", {**extra, "train.epochs": 2, "train.lars_eta": 0.01}, resume="auto")
        self.assertIn("train.lars_eta is now 0.01, in the checkpoint 0.02", longer.out)

    def test_refusal(self):
        self.refused(self.train("run", {"train.optimizer": "lars"}, code=2), "train.decay_norm_and_bias = no")


load_tests = enough_under_sanitizers("Accumulation.test_parts_are_ranks", "Accumulation.test_refusal",
                                     "Update.test_clipping", "Update.test_averages", "Lars.test_first_step",
                                     "Lars.test_resume")


if __name__ == "__main__":
    unittest.main()
