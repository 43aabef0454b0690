"""The reference problem: weights, input and target from a generator, and the results of a few steps of SGD or LARS.

`run` gives everything that a reference file holds; check_reference.py compares it, make_reference.py writes it.
"""

import math

import numpy as np
import torch

from lars import Lars
from teskd_torch import LossSettings, Network, joint_loss

SETTINGS_INT = ("classes", "seed", "batch", "height", "width", "nesterov", "steps", "base_width", "student_width")
SETTINGS_FLOAT = ("temperature", "ce_weight", "kd_weight", "feature_weight", "teacher_weight", "lr", "momentum",
                  "weight_decay", "lars_eta")


def settings_of(attributes):
    """The problem's settings from a file's root attributes."""
    settings = {"network": attributes["network"]}
    settings.update({k: int(attributes[k]) for k in SETTINGS_INT if k in attributes})
    settings.update({k: float(attributes[k]) for k in SETTINGS_FLOAT if k in attributes})
    settings["student_weights"] = tuple(float(v) for v in attributes["student_weights"])
    return settings


def hash64(name, seed, count):
    """`count` 64-bit values: the FNV-1a hash of the name plus the seed starts a splitmix64 sequence."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    h = np.uint64((h + seed) & 0xFFFFFFFFFFFFFFFF)
    z = h + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(name, seed, count):
    return (hash64(name, seed, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generated(prefix, kind, shape, seed, is_norm):
    """One parameter in double precision: `kind` is its name inside its module, weight or bias."""
    u = uniform(f"{prefix}.{kind}", seed, math.prod(shape))
    if is_norm:
        return 0.5 + u if kind == "weight" else (2 * u - 1) * 0.2
    if kind == "bias":
        return (2 * u - 1) * 0.1
    gain = 2 if len(shape) == 4 else 1  # a convolution is followed by a ReLU, a linear layer is not
    return (2 * u - 1) * math.sqrt(3) * math.sqrt(gain / math.prod(shape[1:]))


def generate_weights(network, seed):
    """Fills the network: each value computed in double, rounded once to float32."""
    with torch.no_grad():
        for prefix, module in network.named_modules():
            is_norm = isinstance(module, torch.nn.BatchNorm2d)
            for kind, tensor in module.named_parameters(recurse=False):
                value = generated(prefix, kind, tensor.shape, seed, is_norm).astype(np.float32)
                tensor.copy_(torch.from_numpy(value).view(tensor.shape))


def sample_indices(name, seed, size, count):
    return (hash64("sample:" + name, seed, count) % np.uint64(size)).astype(np.int64)


def summary(name, tensor, seed, samples):
    """What a file keeps of a tensor: its norm, its sum and sampled elements."""
    flat = tensor.detach().double().reshape(-1).numpy()
    index = sample_indices(name, seed, flat.size, samples)
    return {"l2": float(np.sqrt(flat @ flat)), "sum": float(flat.sum()), "shape": tuple(tensor.shape), "index": index,
            "value": flat[index]}


def stack(tensors):
    return np.stack([t.detach().double().numpy() for t in tensors])


def optimiser_of(parameters, s):
    common = {k: s[k] for k in ("lr", "momentum", "weight_decay")}
    if s.get("lars_eta", 0) > 0:
        return Lars(parameters, eta=s["lars_eta"], nesterov=bool(s["nesterov"]), **common)
    return torch.optim.SGD(parameters, nesterov=bool(s["nesterov"]), **common)


LOSS_SCALES = (4096, 256, 16, 1)  # of float16: the largest with which nothing overflows


def run(settings, samples, dtype=torch.float64, autocast=None):
    """`run_scaled`, with a loss scale in float16."""
    for scale in LOSS_SCALES if autocast == torch.float16 else (1,):
        result = run_scaled(settings, samples, dtype, autocast, scale)
        if np.isfinite(result["losses"]).all() and np.isfinite(result["eval_logits"]).all():
            break
    return result


def run_scaled(settings, samples, dtype, autocast, scale):
    """Trains for the given steps on one batch; returns the contents of a reference file as a dictionary.

    `samples`: how many elements are kept of every tensor, or {name: how many}.

    With `autocast`, a 16-bit dtype, PyTorch chooses what it computes in it.
    """
    s = settings
    network = Network(s["network"], s["classes"], base_width=s.get("base_width"), student_width=s.get("student_width"))
    generate_weights(network, s["seed"])
    network.to(dtype).train()
    shape = (s["batch"], 3, s["height"], s["width"])
    data = ((2 * uniform("input", s["seed"], math.prod(shape)) - 1) * math.sqrt(3)).astype(np.float32)
    target = (hash64("target", s["seed"], s["batch"]) % np.uint64(s["classes"])).astype(np.int32)
    x, y = torch.from_numpy(data).view(shape).to(dtype), torch.from_numpy(target).long()
    loss_settings = LossSettings(**{k: s[k] for k in LossSettings.__dataclass_fields__})
    optimiser = optimiser_of(network.parameters(), s)

    def summaries(tensor_of):
        counts = samples if isinstance(samples, dict) else {n: samples for n, _ in network.named_parameters()}
        return {n: summary(n, tensor_of(p), s["seed"], counts[n]) for n, p in network.named_parameters()}

    result = {"parameters": [n for n, _ in network.named_parameters()], "target": target,
              "input_head": data[:16].astype(np.float64), "losses": []}
    for step in range(s["steps"]):
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            logits, features = network(x)
        logits, features = [v.to(dtype) for v in logits], [v.to(dtype) for v in features]
        total, parts = joint_loss(logits, features, y, loss_settings)
        optimiser.zero_grad()
        (scale * total).backward()
        for p in network.parameters():
            p.grad /= scale
        if step == 0:
            result["logits"], result["features"] = stack(logits), stack(features)
            result["gradients"] = summaries(lambda p: p.grad)
        result["losses"].append([float(v.detach()) for v in (total, *parts)])
        optimiser.step()
    result["losses"] = np.array(result["losses"])
    result["after"] = summaries(lambda p: p)
    result["running"] = {n: b.double().numpy() for n, b in network.named_buffers() if "running_" in n}
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        result["eval_logits"] = stack(network(x)[0])
    return result


def relative(value, reference):
    """Relative L2 error."""
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def sampled_error(got, want):
    """Relative error over all tensors, each one's sampled error weighted to its whole norm."""
    error, norm = 0.0, 0.0
    for name, w in want.items():
        sampled = np.linalg.norm(w["value"])
        if sampled > 0:
            error += (np.linalg.norm(got[name]["value"] - w["value"]) / sampled * w["l2"]) ** 2
        norm += w["l2"] ** 2
    return math.sqrt(error / norm)


def errors(got, want):
    """The relative errors of one result against another, under the names of a file's error groups."""
    error = {k: np.array([relative(g, w) for g, w in zip(got[k], want[k])])
             for k in ("logits", "features", "losses", "eval_logits")}
    error["gradients"] = sampled_error(got["gradients"], want["gradients"])
    error["after"] = sampled_error(got["after"], want["after"])
    names = want["running"]
    error["running"] = relative(np.concatenate([got["running"][n] for n in names]),
                                np.concatenate([want["running"][n] for n in names]))
    return error
