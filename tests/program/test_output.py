"""What a run does to the files that it finds: whose they are, what they are, and what becomes of them."""

import json
import os
import re
import stat
import threading
import time
import unittest

from program import HOST, SOURCE, Checkpoint, ProgramTest, enough_under_sanitizers, finish, run, start, stop

SHORT = {"train.max_steps": 2}
ENDLESS = {"train.epochs": 100000, "eval.every": 0, "log.every": 1000, "output.checkpoint_every": 100000}
FILES = ["best.h5", "last.h5", "metrics.jsonl"]


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {seconds} s")
        time.sleep(0.02)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Folder(ProgramTest):
    def folder_state(self, name):
        return {file: read(self.path(name, file)) for file in os.listdir(self.path(name))}

    def refuse(self, name, *words, options=(), ranks=1, code=2):
        """Refused with nothing in the folder changed."""
        before = self.folder_state(name)
        result = run(*self.training_arguments(name, SHORT), *options, ranks=ranks)
        self.assertEqual(result.code, code, str(result))
        self.assertEqual(self.folder_state(name), before)
        return self.refused(result, self.path(name), *words)

    def start_endless(self, name):
        process = start(*self.training_arguments(name, ENDLESS))
        self.addCleanup(process.communicate)
        self.addCleanup(stop, process)
        wait_for(lambda: os.path.exists(self.path(name, "metrics.jsonl")), "start")
        return process

    def test_a_run_is_not_overwritten_by_mistake(self):
        self.train("run", SHORT)
        self.train("other", {**SHORT, "train.seed": 1})
        for options, ranks in (([], 1), ([], 2), (["--resume", self.path("other", "last.h5")], 1)):
            self.refuse("run", "holds a run already", "--resume auto", "--overwrite", options=options, ranks=ranks)
        # Lines of a run that was killed before its first checkpoint count too, an empty file does not.
        os.mkdir(self.path("lines"))
        open(self.path("lines", "metrics.jsonl"), "w").close()
        self.train("lines", SHORT)
        for file in ("best.h5", "last.h5"):
            if os.path.exists(self.path("lines", file)):
                os.unlink(self.path("lines", file))
        self.refuse("lines", "metrics.jsonl")

    def test_overwrite(self):
        self.train("run", {"train.epochs": 1})
        self.train("run", {"train.epochs": 2}, resume="auto")
        with open(self.path("run", "notes.txt"), "w", encoding="utf-8") as file:
            file.write("mine")
        result = self.run_code(0, *self.training_arguments("run", SHORT), "--overwrite")
        for file in FILES + ["previous.h5"]:
            self.assertIn(f"removed {self.path('run', file)}", result.out)
        self.assertFalse(os.path.exists(self.path("run", "previous.h5")))
        self.assertEqual(read(self.path("run", "notes.txt")), b"mine")
        self.assertEqual(self.last("run").attributes["steps_done"], 2)
        self.assertEqual([line["steps_done"] for line in lines_of(self.path("run", "metrics.jsonl")) if line["event"] == "step"], [1, 2])
        self.refuse("run", "last.h5", options=["--overwrite", "--resume", self.path("run", "last.h5")])
        result = run(*self.training_arguments("run", SHORT), "--overwrite", "--resume", "auto")
        self.assertEqual(result.code, 2, str(result))
        # A damaged checkpoint to go on from: the run that would have been removed stays.
        with open(self.path("none.h5"), "w", encoding="utf-8") as file:
            file.write("nothing")
        before = self.folder_state("run")
        result = run(*self.training_arguments("run", SHORT), "--overwrite", "--resume", self.path("none.h5"))
        self.assertEqual((result.code, self.folder_state("run")), (1, before), str(result))

    def test_one_run_at_a_time(self):
        self.train("other", SHORT)
        network = self.path("network.safetensors")
        self.run_code(0, "export", "--checkpoint", self.path("other", "last.h5"), "--format", "safetensors", "--all-heads",
                      "--out", network)
        first = self.start_endless("run")
        with open(self.path("run", "teskd.lock"), encoding="utf-8") as file:
            self.assertIn(f"process {first.pid},", file.readline())
        for options, ranks in (([], 1), (["--resume", "auto"], 2), (["--overwrite"], 1)):
            result = run(*self.training_arguments("run", SHORT), *options, ranks=ranks)
            self.assertEqual(result.code, 1, str(result))
            self.refused(result, f"output.dir: {self.path('run')} is in use", HOST, f"process {first.pid}", time.strftime("since %Y-%m-%d"))
        # What only looks is not in the way.
        self.run_code(0, *self.training_arguments("run", SHORT), "--dry-run")
        for name, code in (("last.h5", 1), ("start.h5", 0)):
            result = self.run_code(code, "import", "--from", network, "--out", self.path("run", name), "--set",
                                   "model.network=cifarresnet8", "--set", "model.width=4", "--set", "data.kind=cifar10")
            self.assertEqual("in use by another training" in result.err, code == 1)
            self.assertNotIn("output.dir", result.err, "import has no such setting")
        # A killed run leaves no lock behind.
        stop(first)
        first.communicate()
        self.assertTrue(os.path.exists(self.path("run", "teskd.lock")))
        began = time.monotonic()
        self.train("run", SHORT, resume="auto")
        self.assertLess(time.monotonic() - began, 20)
        self.assertFalse(os.path.exists(self.path("run", "teskd.lock")))

    @unittest.skipIf(os.environ.get("TESKD_SANITIZED"), "sanitizers have to be loaded first")
    def test_a_file_system_without_locks(self):
        os.environ["LD_PRELOAD"] = os.environ["TESKD_NO_LOCKS"]
        self.addCleanup(os.environ.pop, "LD_PRELOAD")
        first = self.start_endless("run")
        result = run(*self.training_arguments("run", SHORT))
        self.assertEqual(result.code, 1, str(result))
        self.assertIn("no locks", result.out)
        self.refused(result, "in use", HOST, f"process {first.pid}")
        stop(first)
        first.communicate()
        self.age_lock("run", 3600)
        result = self.train("run", SHORT, resume="auto")
        self.assertNotIn("waiting", result.out)

    def age_lock(self, name, seconds):
        os.utime(self.path(name, "teskd.lock"), (time.time() - seconds, time.time() - seconds))

    def test_a_run_on_another_host(self):
        # Some network file systems keep locks to one host: whether the file is touched tells.
        os.mkdir(self.path("run"))
        with open(self.path("run", "teskd.lock"), "w", encoding="utf-8") as file:
            file.write("host elsewhere, process 17, since 2024-02-29 12:00:00 UTC\x1b[31m\n0123\n")
        process = start(*self.training_arguments("run", SHORT))
        toucher = threading.Timer(1.5, self.age_lock, ("run", 1))
        toucher.start()
        result = finish(process)
        toucher.join()
        self.assertEqual(result.code, 1, str(result))
        message = self.refused(result, "in use", "host elsewhere, process 17, since 2024-02-29 12:00:00 UTC")
        self.assertTrue(message.isprintable(), message)
        self.age_lock("run", 3600)
        self.train("run", SHORT)

    def test_temporary_files_of_killed_runs(self):
        os.mkdir(self.path("run"))
        left = ["last.h5.tmp.0123456789abcdef", "best.h5.tmp.4711", "previous.h5.tmp.00ff"]
        kept = ["last.h5.tmp.backup", "mine.h5.tmp.0123456789abcdef"]
        for name in left + kept:
            with open(self.path("run", name), "w", encoding="utf-8") as file:
                file.write("half")
        result = self.train("run", SHORT)
        self.assertIn("3 temporary files of killed runs removed", result.out)
        self.assertEqual([name for name in sorted(os.listdir(self.path("run"))) if ".tmp." in name], sorted(kept))
        # Elsewhere only the target's own, and only old ones: another process may be writing.
        target = self.path("network.onnx")
        for name, age in (("aaaa", 2 * 3600), ("bbbb", 60)):
            with open(f"{target}.tmp.{name}", "w", encoding="utf-8") as file:
                file.write("half")
            os.utime(file.name, (time.time() - age, time.time() - age))
        self.run_code(0, "export", "--checkpoint", self.path("run", "last.h5"), "--format", "onnx", "--out", target)
        self.assertEqual([name for name in os.listdir(self.folder) if ".tmp." in name], ["network.onnx.tmp.bbbb"])

    def test_links_are_not_followed(self):
        victim = self.path("victim")
        with open(victim, "w", encoding="utf-8") as file:
            file.write("precious")
        for name in FILES + ["previous.h5", "teskd.lock"]:
            folder = f"at-{name}"
            os.mkdir(self.path(folder))
            os.symlink(victim, self.path(folder, name))
            for resume in (None, "auto"):
                result = run(*self.training_arguments(folder, SHORT, resume))
                self.assertEqual(result.code, 1, str(result))
                self.refused(result, self.path(folder, name))
            self.assertEqual(os.readlink(self.path(folder, name)), victim)
        self.assertEqual(read(victim), b"precious")
        os.mkdir(self.path("there"))
        os.symlink(self.path("there"), self.path("here")) # the folder itself may be a link
        self.train("here", SHORT)
        self.assertTrue(os.path.exists(self.path("there", "last.h5")))

    def test_what_resume_goes_on_from(self):
        result = run(*self.training_arguments("run", SHORT), "--resume", "")
        self.assertEqual(result.code, 2, str(result))
        self.refused(result, "--resume", "empty")
        for option, command in (("--checkpoint", "eval"), ("--out", "export"), ("--config", "train"), ("--from", "import"),
                                ("--predictions", "eval")):
            self.assertEqual(run(command, f"{option}=").code, 2, option)
        self.train("run", {"train.epochs": 1})
        self.train("run", {"train.epochs": 2}, resume="auto")
        last, previous = self.path("run", "last.h5"), self.path("run", "previous.h5")
        os.unlink(last)
        result = self.train("run", {"train.epochs": 2}, resume="auto")
        self.assertIn("going on from previous.h5", result.out)
        self.assertIn(f"resumed from {previous}", result.out)
        self.assertEqual(self.last("run").attributes["epoch"], 2)
        os.unlink(last)
        os.unlink(previous)
        message = self.refuse("run", "best.h5", "--overwrite", options=["--resume", "auto"])
        best = re.search(r"--resume (\S+) goes on", message)[1]
        self.train("run", {"train.epochs": 3}, resume=best)
        os.truncate(last, 0)
        self.refuse("run", last, options=["--resume", "auto"], code=1)
        os.unlink(last)
        os.symlink("nowhere", last)
        self.refuse_dangling("run", last)

    def refuse_dangling(self, name, path):
        result = run(*self.training_arguments(name, SHORT, "auto"))
        self.assertEqual(result.code, 1, str(result))
        self.refused(result, path, "link")
        self.assertEqual(os.readlink(path), "nowhere")

    def test_rights_stay(self):
        old = os.umask(0o022)
        self.addCleanup(os.umask, old)
        self.train("run", {"train.epochs": 1})
        rights = {"last.h5": 0o600, "best.h5": 0o640, "metrics.jsonl": 0o600}
        for name, mode in rights.items():
            os.chmod(self.path("run", name), mode)
            if os.geteuid() == 0:
                os.chown(self.path("run", name), 12345, 23456)
        self.train("run", {"train.epochs": 2}, resume="auto")
        for name in ("last.h5", "metrics.jsonl", "previous.h5"):
            info = os.stat(self.path("run", name))
            self.assertEqual(stat.S_IMODE(info.st_mode), 0o600, name)
            if os.geteuid() == 0:
                self.assertEqual((info.st_uid, info.st_gid), (12345, 23456), name)
        target = self.path("network.safetensors")
        with open(target, "w", encoding="utf-8"):
            pass
        os.chmod(target, 0o604)
        self.run_code(0, "export", "--checkpoint", self.path("run", "best.h5"), "--format", "safetensors", "--out", target)
        self.assertEqual(stat.S_IMODE(os.stat(target).st_mode), 0o604)


class Metrics(ProgramTest):
    def test_torn_line_and_undone_steps(self):
        self.train("run", {"train.epochs": 1, "output.checkpoint_every": 4, "train.max_steps": 6})
        path = self.path("run", "metrics.jsonl")
        with open(path, "ab") as file:
            file.write(b'{"event":"step","epoch":1,"st')
        previous = self.path("run", "previous.h5")
        before = Checkpoint(previous).attributes["steps_done"]
        self.train("run", {"train.epochs": 1}, resume=previous)
        lines = lines_of(self.path("run", "metrics.jsonl")) # each of them reads
        resumes = [line for line in lines if line["event"] == "resume"]
        self.assertEqual([(line["steps_done"], line["from"]) for line in resumes], [(before, previous)])
        steps = [line["steps_done"] for line in lines if line["event"] == "step"]
        self.assertGreater(len(steps), len(set(steps)), "no step was done twice")
        kept = self.documented_reader()(path)
        self.assertEqual([line["steps_done"] for line in kept if line["event"] == "step"], list(range(1, 11)))
        self.assertEqual([line["epoch"] for line in kept if line["event"] == "epoch"], [1])

    def documented_reader(self):
        """The function in docs/formats.md."""
        text = (SOURCE / "docs" / "formats.md").read_text(encoding="utf-8")
        block = re.search(r"^    import json\n(?:(?:    .*)?\n)*?(?=\S)", text, re.M)[0]
        names = {}
        exec("\n".join(line[4:] for line in block.splitlines()), names) # pylint: disable=exec-used
        return names["read_metrics"]


class Targets(ProgramTest):
    """--out and the other options that name a file to write."""

    def setUp(self):
        super().setUp()
        self.train("run", SHORT)
        self.checkpoint = self.path("run", "last.h5")

    def export(self, target, code=0):
        return self.run_code(code, "export", "--checkpoint", self.checkpoint, "--format", "safetensors", "--out", target)

    def test_no_regular_files(self):
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        got = []
        reader = threading.Thread(target=lambda: got.append(read(fifo)))
        reader.start()
        self.export(fifo)
        reader.join()
        self.export(self.path("file"))
        self.assertEqual(got[0], read(self.path("file")))
        self.assertTrue(stat.S_ISFIFO(os.stat(fifo).st_mode))
        null = os.lstat("/dev/null")
        self.export("/dev/null")
        self.assertTrue(stat.S_ISCHR(os.lstat("/dev/null").st_mode))
        self.assertEqual(os.lstat("/dev/null").st_rdev, null.st_rdev)
        self.refused(self.export("/dev/full", code=1), "/dev/full", "No space left")
        self.refused(self.export(self.folder, code=1), self.folder, "folder")

    def test_links(self):
        victim, link, dangling = self.path("victim"), self.path("link"), self.path("dangling")
        with open(victim, "w", encoding="utf-8") as file:
            file.write("precious")
        os.symlink(victim, link)
        os.symlink("nowhere", dangling)
        for path, to in ((link, victim), (dangling, "nowhere")):
            self.refused(self.export(path, code=1), path, to)
            self.assertEqual(os.readlink(path), to)
        self.assertEqual(read(victim), b"precious")
        arguments = self.training_arguments("graph", SHORT)
        self.refused(self.run_code(1, *arguments, "--dry-run", "--dump-graph", link), link)
        result = self.run_code(1, "eval", "--checkpoint", self.checkpoint, "--predictions", link)
        self.refused(result, link)

    def test_what_is_read_is_not_written(self):
        hard = self.path("hard.h5")
        os.link(self.checkpoint, hard)
        before = read(self.checkpoint)
        for target in (self.checkpoint, hard, os.path.relpath(self.checkpoint)):
            self.refused(self.export(target, code=2), target, "--checkpoint")
        result = self.run_code(2, "eval", "--checkpoint", self.checkpoint, "--predictions", hard)
        self.refused(result, hard)
        self.assertEqual(read(self.checkpoint), before)
        images = os.path.join(self.data, "test_batch.bin")
        before = read(images)
        for arguments in (["eval", "--checkpoint", self.checkpoint, "--predictions", images],
                          [*self.training_arguments("graph", SHORT), "--dump-graph", images]):
            self.refused(self.run_code(2, *arguments), images, "data set")
        self.assertEqual(read(images), before)


load_tests = enough_under_sanitizers("Folder.test_one_run_at_a_time", "Folder.test_overwrite",
                                     "Folder.test_links_are_not_followed", "Metrics", "Targets")


if __name__ == "__main__":
    unittest.main()
