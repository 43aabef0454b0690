"""The CPU training step of the paper's recipe, this program against PyTorch, in images a second.

Forward, joint loss, backward and SGD (Nesterov momentum 0.9, weight decay 5e-4) in float32 on made-up data. All ways
take turns in one run, on the same cores with the same number of threads, so that noise strikes all of them alike.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "torch"))
OURS = "teskd"
TORCH_WAYS = ("eager", "channels_last", "compile")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--network", default="cifarresnet18", help="a network of tests/torch/teskd_torch.py")
    parser.add_argument("--method", choices=("teskd", "plain"), default="teskd")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cores", help="pin everything to these cores, for example 0,1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps a round")
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps of each PyTorch way")
    parser.add_argument("--ways", default=",".join(TORCH_WAYS), help="PyTorch's ways to run")
    parser.add_argument("--teskd", default="build/teskd", help="the program; 'none' measures PyTorch alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting for teskd")
    args = parser.parse_args()
    args.ways = args.ways.split(",")
    for way in args.ways:
        if way not in TORCH_WAYS:
            parser.error(f"--ways: unknown way {way!r}, expected some of {','.join(TORCH_WAYS)}")
    if args.teskd != "none" and not os.access(args.teskd, os.X_OK):
        parser.error(f"--teskd: {args.teskd} is not a program; build it first, or give 'none'")
    return args


class TorchWay:
    """One way to run the step in PyTorch; the process keeps it, its weights and its data between rounds."""

    def __init__(self, way, args):
        import torch
        from teskd_torch import LossSettings, Network, joint_loss

        imagenet = args.network.startswith("resnet")
        classes, side = (1000, 224) if imagenet else (100, 32)
        torch.manual_seed(0)
        layout = torch.contiguous_format if way == "eager" else torch.channels_last
        network = Network(args.network, classes, args.method).to(memory_format=layout).train()
        self.x = torch.randn(args.batch, 3, side, side).to(memory_format=layout)
        self.y = torch.randint(classes, (args.batch,))
        self.optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True,
                                         fused=True)
        settings = LossSettings()

        def loss(x, y):
            return joint_loss(*network(x), y, settings)[0]

        self.loss = torch.compile(loss) if way == "compile" else loss
        self.batch = args.batch
        self.measure(args.warmup)

    def step(self):
        loss = self.loss(self.x, self.y)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def measure(self, steps):
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return steps * self.batch / (time.perf_counter() - start)


class Teskd:
    """This program, a process a round: `teskd bench` warms itself up and reports its own rate."""

    def __init__(self, args):
        settings = [f"model.network={args.network}", f"train.batch={args.batch}", f"run.threads={args.threads}"]
        settings += args.set
        if args.method != "teskd":
            settings.append(f"model.method={args.method}")
        self.command = [args.teskd, "bench", "--json"]
        for setting in settings:
            self.command += ["--set", setting]

    def measure(self, steps):
        done = subprocess.run([*self.command, "--steps", str(steps)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(self.command)} failed ({done.returncode}):\n{done.stderr.strip()}")
        return float(json.loads(done.stdout.strip().splitlines()[-1])["images_per_second"])


def build_ways(args):
    """All ways that start. One that cannot is told on stderr and in the return code, never dropped in silence."""
    import torch

    torch.set_num_threads(args.threads)
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {args.threads} threads")
    ways, failed = {}, []
    for way in args.ways:
        try:
            start = time.perf_counter()
            ways[way] = TorchWay(way, args)
            print(f"{way}: ready in {time.perf_counter() - start:.1f} s", flush=True)
        except Exception as error:  # inductor raises whatever its compiler run met
            failed.append(way)
            print(f"{way}: FAILED to start: {type(error).__name__}: {str(error)[:2000]}", file=sys.stderr)
    if args.teskd != "none":
        ways[OURS] = Teskd(args)
        ways[OURS].measure(1)
    return ways, failed


def print_table(rates, failed):
    print(f"\n{'way':<14} {'median':>9} {'min':>9} {'max':>9}   images/s")
    for way, values in rates.items():
        print(f"{way:<14} {statistics.median(values):9.2f} {min(values):9.2f} {max(values):9.2f}")
    torch_rates = {way: statistics.median(v) for way, v in rates.items() if way != OURS}
    if OURS in rates and torch_rates:
        fastest = max(torch_rates, key=torch_rates.get)
        ratio = statistics.median(rates[OURS]) / torch_rates[fastest]
        missing = f" (did not start: {', '.join(failed)})" if failed else ""
        print(f"\nfastest of PyTorch's ways: {fastest}{missing}")
        print(f"ratio to the fastest of PyTorch's ways: {ratio:.2f}")


def main():
    args = parse_arguments()
    if args.cores:
        os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read when PyTorch is loaded
    print(f"{args.network} ({args.method}), batch {args.batch}, float32, {args.rounds} rounds of {args.steps} steps")
    ways, failed = build_ways(args)
    rates = {way: [] for way in ways}
    for turn in range(args.rounds):
        for way, runner in ways.items():
            rates[way].append(runner.measure(args.steps))
        print(f"round {turn + 1}: " + ", ".join(f"{way} {values[-1]:.2f}" for way, values in rates.items()), flush=True)
    print_table(rates, failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
