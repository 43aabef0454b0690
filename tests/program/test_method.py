"""The switches of the method: students on and off, the teacher's part in the distillation, label smoothing."""

import re
import unittest

from program import ProgramTest, events

SHORT = {"train.epochs": 1, "data.train_images": 80}


class Students(ProgramTest):
    def names(self, name):
        return {tensor[len("weights/"):] for tensor in self.last(name).tensors if tensor.startswith("weights/")}

    def test_none_is_plain(self):
        self.train("none", {**SHORT, "model.students": 0})
        self.train("plain", {**SHORT, "model.method": "plain"})
        none, plain = self.last("none"), self.last("plain")
        self.assertEqual(set(none.tensors), set(plain.tensors))
        for name, values in plain.tensors.items():
            self.assertEqual(none.tensors[name].tobytes(), values.tobytes(), name)
        self.assertEqual(none.attributes["steps_done"], 4)

    def test_unused_layers_are_dropped(self):
        self.train("plain", {**SHORT, "model.method": "plain"})
        backbone = self.names("plain")
        # students, their heads, and the stages (0 to 3) of the top-down path with laterals, upsamples and fusions
        for students, heads, laterals, upsamples, fusions in (
                ("3", {3}, {2, 3}, {2}, {3}),
                ("3,2", {3, 2}, {1, 2, 3}, {1, 2}, {2, 3}),
                ("1", {1}, {0, 1, 2, 3}, {0, 1, 2}, {1, 2, 3}),
                ("3,2,1", {3, 2, 1}, {0, 1, 2, 3}, {0, 1, 2}, {1, 2, 3})):
            with self.subTest(students=students):
                result = self.train(students, {**SHORT, "model.students": students})
                names = self.names(students)
                self.assertLess(backbone, names)
                for pattern, expected in ((r"fc_b(\d)\.", heads), (r"downsample(\d)\.", heads),
                                          (r"laterals\.(\d)\.", laterals), (r"upsample\.(\d)\.", upsamples),
                                          (r"fuse_(\d)\.", fusions)):
                    found = {int(number) for name in names - backbone for number in re.findall("^" + pattern, name)}
                    self.assertEqual(found, expected, pattern)
                rows = re.findall(r"^  (teacher|student\d) .*%", result.out, re.MULTILINE)
                self.assertEqual(set(rows), {"teacher"} | {f"student{head}" for head in heads})

    def test_students_teach_the_teacher(self):
        self.train("plain", {**SHORT, "model.method": "plain"})
        self.train("one", {**SHORT, "model.students": 3})
        plain, one = self.last("plain").tensors, self.last("one").tensors
        self.assertNotEqual(plain["weights/conv1.weight"].tobytes(), one["weights/conv1.weight"].tobytes())

    def test_refusals(self):
        self.refused(self.train("run", {"model.students": "0,3"}, code=2), "model.students")
        self.refused(self.train("run", {"model.students": "4"}, code=2), "model.students")


class Losses(ProgramTest):
    def steps(self, name, changes):
        self.train(name, {**SHORT, **changes})
        return events(self.path(name), "step")

    def test_detached_teacher(self):
        attached = self.steps("attached", {})
        detached = self.steps("detached", {"loss.kd_detach_teacher": "yes"})
        self.assertEqual(attached[0]["loss"], detached[0]["loss"])
        self.assertNotEqual(attached[1]["loss"], detached[1]["loss"])
        # Without distillation there is nothing to detach.
        without = [self.steps(f"without_{word}", {"loss.kd_detach_teacher": word, "loss.kd_weight": 0})
                   for word in ("no", "yes")]
        self.assertEqual([step["loss"] for step in without[0]], [step["loss"] for step in without[1]])

    def test_label_smoothing(self):
        """The loss is linear in the smoothing; evaluation does not smooth."""
        first, tests = {}, {}
        for smoothing in (0, 0.1, 1):
            name = str(smoothing)
            first[smoothing] = self.steps(name, {"train.label_smoothing": smoothing, "train.lr": 0})[0]
            tests[smoothing] = events(self.path(name), "epoch")[0]["test_cross_entropy"]
        for head in range(4):
            none, some, all_of_it = (first[s]["train_cross_entropy"][head] for s in (0, 0.1, 1))
            self.assertNotEqual(none, all_of_it)
            self.assertAlmostEqual(some, 0.9 * none + 0.1 * all_of_it, places=6)
        self.assertEqual(tests[0], tests[0.1])
        self.assertEqual(tests[0], tests[1])


if __name__ == "__main__":
    unittest.main()
