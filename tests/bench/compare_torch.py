"""The training step of the paper's recipe, this program against PyTorch, in images per second.

Forward, joint loss, backward and SGD (Nesterov momentum 0.9, weight decay 5e-4) on synthetic data: in float32 on the CPU,
in mixed precision (autocast, with GradScaler for float16) on a GPU. All ways take turns in one run on the same device,
so that noise strikes all of them alike.
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
# Each of PyTorch's ways: (channels_last, compiled, mode of torch.compile).
TORCH_WAYS = {"eager": (False, False, None), "channels_last": (True, False, None), "compile": (True, True, None),
              "compile_graphs": (True, True, "reduce-overhead")}
DEVICES = {"cpu": {"ways": "eager,channels_last,compile", "precision": "fp32", "warmup": 2, "rest": 0},
           "cuda": {"ways": "channels_last,compile", "precision": "fp16", "warmup": 10, "rest": 3}}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="cifarresnet18", help="a network of tests/torch/teskd_torch.py")
    parser.add_argument("--method", choices=("teskd", "plain"), default="teskd")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--precision", choices=("fp16", "bf16", "tf32", "fp32"),
                        help="on a GPU (default: fp16); the CPU's is fp32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="on the CPU")
    parser.add_argument("--cores", help="pin everything to these cores, for example 0,1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps a round")
    parser.add_argument("--warmup", type=int, help="untimed steps of each PyTorch way (default: 2; on a GPU 10)")
    parser.add_argument("--ways", help="PyTorch's ways to run, of " + ",".join(TORCH_WAYS) +
                        " (default: the first three; on a GPU channels_last,compile)")
    parser.add_argument("--teskd", default="build/teskd", help="the program; 'none' measures PyTorch alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting for teskd")
    args = parser.parse_args()
    for key in ("ways", "precision", "warmup"):
        if getattr(args, key) is None:
            setattr(args, key, DEVICES[args.device][key])
    args.ways = args.ways.split(",")
    for way in args.ways:
        if way not in TORCH_WAYS:
            parser.error(f"--ways: unknown way {way!r}, expected some of {','.join(TORCH_WAYS)}")
    if args.device == "cpu" and args.precision != "fp32":
        parser.error("--precision: the CPU's is fp32")
    if args.teskd != "none" and not os.access(args.teskd, os.X_OK):
        parser.error(f"--teskd: {args.teskd} is not a program; build it first, or give 'none'")
    args.classes, args.side = (1000, 224) if args.network.startswith("resnet") else (100, 32)
    return args


class TorchWay:
    """One way to run the step in PyTorch; the process keeps it, its weights and its data between rounds."""

    def __init__(self, way, args):
        import torch
        from teskd_torch import LossSettings, Network, joint_loss

        self.torch, self.batch, self.device = torch, args.batch, args.device
        self.rest = DEVICES[args.device]["rest"]
        channels_last, compiled, mode = TORCH_WAYS[way]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        torch.manual_seed(0)
        network = Network(args.network, args.classes, args.method).to(args.device, memory_format=layout).train()
        self.x = torch.randn(args.batch, 3, args.side, args.side, device=args.device).to(memory_format=layout)
        self.y = torch.randint(args.classes, (args.batch,), device=args.device)
        self.optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True,
                                         fused=True)
        self.dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(args.precision)
        self.scaler = torch.amp.GradScaler(args.device, enabled=args.precision == "fp16")
        settings = LossSettings()

        def loss(x, y):
            return joint_loss(*network(x), y, settings)[0]

        self.loss = torch.compile(loss, mode=mode) if compiled else loss
        self.measure(args.warmup)

    def step(self):
        with self.torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype is not None):
            loss = self.loss(self.x, self.y)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def seconds(self, steps):
        if self.device == "cpu":
            start = time.perf_counter()
            for _ in range(steps):
                self.step()
            return time.perf_counter() - start
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(steps):
            self.step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def measure(self, steps):
        for _ in range(self.rest):  # takes its memory again
            self.step()
        seconds = self.seconds(steps)
        if self.device == "cuda":  # memory that the others need
            self.torch.cuda.empty_cache()
        return steps * self.batch / seconds


class Teskd:
    """This program, a process a round: `teskd bench` warms itself up and reports its own rate."""

    def __init__(self, args):
        settings = [f"model.network={args.network}", f"model.classes={args.classes}", f"train.batch={args.batch}",
                    f"run.device={args.device}", f"run.precision={args.precision}"]
        if args.device == "cpu":
            settings.append(f"run.threads={args.threads}")
        if args.method != "teskd":
            settings.append(f"model.method={args.method}")
        self.command = [args.teskd, "bench", "--json"]
        for setting in settings + args.set:
            self.command += ["--set", setting]

    def measure(self, steps):
        done = subprocess.run([*self.command, "--steps", str(steps)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(self.command)} failed ({done.returncode}):\n{done.stderr.strip()}")
        return float(json.loads(done.stdout.strip().splitlines()[-1])["images_per_second"])


def set_up_torch(args):
    import torch

    if args.device == "cpu":
        torch.set_num_threads(args.threads)
        print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {args.threads} threads")
        return
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision != "fp32"
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}, cuDNN {torch.backends.cudnn.version()}, "
          f"cudnn.benchmark {torch.backends.cudnn.benchmark}, matmul.allow_tf32 "
          f"{torch.backends.cuda.matmul.allow_tf32}, cudnn.allow_tf32 {torch.backends.cudnn.allow_tf32}")


def build_ways(args):
    """All ways that start. One that cannot is told on stderr and in the return code, never dropped in silence."""
    set_up_torch(args)
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
        ours = statistics.median(rates[OURS])
        fastest = max(torch_rates, key=torch_rates.get)
        missing = f" (did not start: {', '.join(failed)})" if failed else ""
        print()
        for way, rate in torch_rates.items():
            print(f"ratio to {way}: {ours / rate:.2f}")
        print(f"fastest of PyTorch's ways: {fastest}{missing}")
        print(f"ratio to the fastest of PyTorch's ways: {ours / torch_rates[fastest]:.2f}")


def main():
    args = parse_arguments()
    if args.cores:
        os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
    if args.device == "cpu":
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read when PyTorch is loaded
    print(f"{args.network} ({args.method}), batch {args.batch}, {args.precision}, {args.rounds} rounds of {args.steps} "
          "steps")
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
