"""TESKD in PyTorch, for comparison only: the network, its three students and the joint loss.

The tensor names are those of the published state_dict, so the tests can address the same tensor on both sides.
Heads and features are always in the order teacher, student3, student2, student1.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

HEADS = ("teacher", "student3", "student2", "student1")

# name: (ImageNet stem, blocks of the four stages, bottleneck, width of the first stage)
NETWORKS = {
    "cifarresnet8": (False, (1, 1, 1, 1), False, 16),
    "cifarresnet18": (False, (2, 2, 2, 2), False, 64),
    "cifarresnet34": (False, (3, 4, 6, 3), False, 64),
    "cifarresnet50": (False, (3, 4, 6, 3), True, 64),
    "resnet18": (True, (2, 2, 2, 2), False, 64),
    "resnet34": (True, (3, 4, 6, 3), False, 64),
    "resnet50": (True, (3, 4, 6, 3), True, 64),
}


def conv(c_in, c_out, kernel, stride=1):
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """A residual block, basic (two 3x3) or bottleneck (1x1, 3x3 with the stride, 1x1 to four times the width)."""

    def __init__(self, c_in, width, stride, bottleneck):
        super().__init__()
        c_out = 4 * width if bottleneck else width
        shapes = [(c_in, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            shapes = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
        self.depth = len(shapes)
        for i, shape in enumerate(shapes, 1):
            self.add_module(f"conv{i}", conv(*shape))
            self.add_module(f"bn{i}", nn.BatchNorm2d(shape[1]))
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def cbr(c_in, c_out):
    return [conv(c_in, c_out, 1), nn.BatchNorm2d(c_out), nn.ReLU()]


def student_head(width, features, kernel):
    """k x k patches to one vector each, then a projection to the teacher's feature width; both with a bias."""
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, stride=kernel), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, features, 1), nn.BatchNorm2d(features), nn.ReLU())


def upsample_cbr(c_in, width):
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *cbr(c_in, width))


class Network(nn.Module):
    """forward(x) gives (logits, features): lists of four for `teskd`, of one (the teacher) for `plain`.

    The students' features are as wide as the teacher's, whatever student_width is: the feature loss subtracts them.
    """

    def __init__(self, network, classes, method="teskd", base_width=None, student_width=None):
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"network {network!r}: expected one of {', '.join(NETWORKS)}")
        if method not in ("teskd", "plain"):
            raise ValueError(f"method {method!r}: expected teskd or plain")
        imagenet, blocks, bottleneck, width = NETWORKS[network]
        width = base_width or width
        expansion = 4 if bottleneck else 1
        stages = [width * 2**i * expansion for i in range(4)]
        self.imagenet, self.method = imagenet, method

        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False) if imagenet else conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        c_in = width
        for i, count in enumerate(blocks):
            layer = []
            for j in range(count):
                layer.append(Block(c_in, width * 2**i, 2 if i > 0 and j == 0 else 1, bottleneck))
                c_in = stages[i]
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(c_in, classes)
        if method == "teskd":
            self.add_students(stages, student_width or c_in, classes)

    def add_students(self, stages, width, classes):
        features = stages[3]
        self.laterals = nn.ModuleList(nn.Sequential(*cbr(c, width)) for c in stages)
        self.upsample = nn.ModuleList(upsample_cbr(width, width) for _ in range(3))
        for i in (1, 2, 3):
            self.add_module(f"fuse_{i}", nn.Sequential(*cbr(2 * width, width)))
        for i in (3, 2, 1):
            self.add_module(f"downsample{i}", student_head(width, features, 2 ** (4 - i)))
        for i in (1, 2, 3):
            self.add_module(f"fc_b{i}", nn.Linear(features, classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.imagenet:
            x = F.max_pool2d(x, 3, 2, 1)
        stages = []
        for i in (1, 2, 3, 4):
            x = getattr(self, f"layer{i}")(x)
            stages.append(x)
        features = [x.mean((2, 3))]
        logits = [self.fc(features[0])]
        if self.method == "plain":
            return logits, features

        top = self.laterals[3](stages[3])
        for i in (3, 2, 1):
            up = self.upsample[i - 1](top)
            top = getattr(self, f"fuse_{i}")(torch.cat((up + self.laterals[i - 1](stages[i - 1]), up), 1))
            features.append(getattr(self, f"downsample{i}")(top).mean((2, 3)))
            logits.append(getattr(self, f"fc_b{i}")(features[-1]))
        return logits, features


@dataclass
class LossSettings:
    temperature: float = 4.0
    ce_weight: float = 0.2
    kd_weight: float = 0.8
    feature_weight: float = 1e-7
    teacher_weight: float = 1.0
    student_weights: tuple = (1.0, 1.0, 1.0)  # student3, student2, student1


def joint_loss(logits, features, target, settings):
    """The total, and what it is made of before the weights: CE of the heads, then KD and feature loss of the students.

    A plain network has one head and no student, so its total is the cross-entropy alone.
    """
    ce = [F.cross_entropy(z, target) for z in logits]
    if len(logits) == 1:
        return ce[0], ce
    t = settings.temperature
    # Not detached: the paper's code lets the students' KD reach the teacher's logits.
    q = F.softmax(logits[0] / t, 1) + 1e-7
    kd = [t * t / len(target) * (q * (q.log() - F.log_softmax(z / t, 1))).sum() for z in logits[1:]]
    feature = [(f - features[0].detach()).square().sum() for f in features[1:]]
    weights = (settings.teacher_weight, *settings.student_weights)
    total = (settings.ce_weight * sum(w * v for w, v in zip(weights, ce))
             + settings.kd_weight * sum(kd) + settings.feature_weight * sum(feature))
    return total, [*ce, *kd, *feature]
