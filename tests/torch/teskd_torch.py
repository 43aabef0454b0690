"""TESKD in PyTorch, for comparison only: the network, its three students and the joint loss.

The tensor names are those of the published state_dict, so the tests can address the same tensor on both sides.
Heads and features are always in the order teacher, student3, student2, student1.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

HEADS = ("teacher", "student3", "student2", "student1")


@dataclass(frozen=True)
class Backbone:
    family: str  # resnet, resnext, seresnet, vgg
    blocks: tuple  # of the four stages; for vgg: convolutions
    bottleneck: bool = False
    width: int = 64  # of the first stage
    imagenet: bool = False  # a 7x7 stem with a max-pool, for large images
    patch: int = 2  # kernel of student3's head; the next ones have twice and four times that


NETWORKS = {
    "cifarresnet8": Backbone("resnet", (1, 1, 1, 1), width=16),
    "cifarresnet18": Backbone("resnet", (2, 2, 2, 2)),
    "cifarresnet34": Backbone("resnet", (3, 4, 6, 3)),
    "cifarresnet50": Backbone("resnet", (3, 4, 6, 3), True),
    "resnext18": Backbone("resnext", (2, 2, 2, 2)),
    "resnext34": Backbone("resnext", (3, 4, 6, 3)),
    "resnext50": Backbone("resnext", (3, 4, 6, 3), True),
    "seresnet18": Backbone("seresnet", (2, 2, 2, 2)),
    "seresnet34": Backbone("seresnet", (3, 4, 6, 3)),
    "seresnet50": Backbone("seresnet", (3, 4, 6, 3), True),
    "vgg16": Backbone("vgg", (2, 3, 3, 3), patch=1),
    "vgg19": Backbone("vgg", (2, 4, 4, 4), patch=1),
    "resnet18": Backbone("resnet", (2, 2, 2, 2), imagenet=True),
    "resnet34": Backbone("resnet", (3, 4, 6, 3), imagenet=True),
    "resnet50": Backbone("resnet", (3, 4, 6, 3), True, imagenet=True),
}


def conv(c_in, c_out, kernel, stride=1, bias=False, groups=1):
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=bias, groups=groups)


class Block(nn.Module):
    """A residual block, basic (two 3x3) or bottleneck (1x1, 3x3 with the stride, 1x1 to four times the width).

    ResNeXt's is twice as wide inside, with 32 groups in the bottleneck's 3x3.
    """

    def __init__(self, backbone, c_in, width, stride):
        super().__init__()
        resnext = backbone.family == "resnext"
        inner = 2 * width if resnext else width
        c_out = 4 * width if backbone.bottleneck else width
        shapes = [(c_in, inner, 3, stride), (inner, c_out, 3, 1)]
        if backbone.bottleneck:
            shapes = [(c_in, inner, 1, 1), (inner, inner, 3, stride), (inner, c_out, 1, 1)]
        self.depth = len(shapes)
        for i, shape in enumerate(shapes, 1):
            groups = 32 if resnext and backbone.bottleneck and i == 2 else 1
            self.add_module(f"conv{i}", conv(*shape, groups=groups))
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


def biased_cbr(c_in, c_out, kernel, stride=1):
    return [conv(c_in, c_out, kernel, stride, bias=True), nn.BatchNorm2d(c_out), nn.ReLU()]


class SEBlock(nn.Module):
    """The branch ends in a ReLU and is weighted by channel before the shortcut is added."""

    def __init__(self, backbone, c_in, width, stride):
        super().__init__()
        c_out = 4 * width if backbone.bottleneck else width
        layers = [*biased_cbr(c_in, width, 3, stride), *biased_cbr(width, c_out, 3)]
        if backbone.bottleneck:
            layers = [*biased_cbr(c_in, width, 1), *biased_cbr(width, width, 3, stride), *biased_cbr(width, c_out, 1)]
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(*biased_cbr(c_in, c_out, 1, stride)[:2])
        hidden = max(c_out // 16, 1)
        self.excitation = nn.Sequential(nn.Linear(c_out, hidden), nn.ReLU(), nn.Linear(hidden, c_out), nn.Sigmoid())

    def forward(self, x):
        y = self.residual(x)
        return F.relu(y * self.excitation(y.mean((2, 3)))[:, :, None, None] + self.shortcut(x))


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
        self.backbone = backbone = NETWORKS[network]
        self.method = method
        width = base_width or backbone.width
        if backbone.family == "vgg":
            stages = self.add_vgg(width, classes)
        else:
            stages = self.add_residual(width, classes)
        if method == "teskd":
            self.add_students(stages, student_width or stages[3], classes)

    def add_residual(self, width, classes):
        backbone = self.backbone
        stages = [width * 2**i * (4 if backbone.bottleneck else 1) for i in range(4)]
        stem = nn.Conv2d(3, width, 7, 2, 3, bias=False) if backbone.imagenet else conv(3, width, 3)
        if backbone.family == "seresnet":
            self.pre = nn.Sequential(*biased_cbr(3, width, 3))
        else:
            self.conv1 = nn.Sequential(stem) if backbone.family == "resnext" else stem
            self.bn1 = nn.BatchNorm2d(width)
        block, name = (SEBlock, "stage") if backbone.family == "seresnet" else (Block, "layer")
        c_in = width
        for i, count in enumerate(backbone.blocks):
            layer = []
            for j in range(count):
                layer.append(block(backbone, c_in, width * 2**i, 2 if i > 0 and j == 0 else 1))
                c_in = stages[i]
            self.add_module(f"{name}{i + 1}", nn.Sequential(*layer))
        self.add_module("linear" if backbone.family == "seresnet" else "fc", nn.Linear(c_in, classes))
        return stages

    def add_vgg(self, width, classes):
        stages = [2 * width, 4 * width, 8 * width, 8 * width]
        self.conv1, self.bn1 = conv(3, width, 3, bias=True), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, bias=True), nn.BatchNorm2d(width)
        c_in = width
        for i, count in enumerate(self.backbone.blocks):
            layer = []
            for _ in range(count):
                layer += biased_cbr(c_in, stages[i], 3)
                c_in = stages[i]
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer, nn.MaxPool2d(2)))
        self.classifier = nn.Sequential(nn.Linear(c_in, c_in), nn.ReLU(), nn.Linear(c_in, c_in), nn.ReLU(),
                                        nn.Linear(c_in, classes))
        return stages

    def add_students(self, stages, width, classes):
        features = stages[3]
        self.laterals = nn.ModuleList(nn.Sequential(*cbr(c, width)) for c in stages)
        self.upsample = nn.ModuleList(upsample_cbr(width, width) for _ in range(3))
        for i in (1, 2, 3):
            self.add_module(f"fuse_{i}", nn.Sequential(*cbr(2 * width, width)))
        for i in (3, 2, 1):
            self.add_module(f"downsample{i}", student_head(width, features, self.backbone.patch * 2 ** (3 - i)))
        for i in (1, 2, 3):
            self.add_module(f"fc_b{i}", nn.Linear(features, classes))

    def stem(self, x):
        if self.backbone.family == "seresnet":
            return self.pre(x)
        x = F.relu(self.bn1(self.conv1(x)))
        if self.backbone.family == "vgg":
            return F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return F.max_pool2d(x, 3, 2, 1) if self.backbone.imagenet else x

    def forward(self, x):
        family = self.backbone.family
        x = self.stem(x)
        stages = []
        for i in (1, 2, 3, 4):
            x = getattr(self, f"stage{i}" if family == "seresnet" else f"layer{i}")(x)
            stages.append(x)
        features = [x.mean((2, 3))]
        classifier = {"seresnet": "linear", "vgg": "classifier"}.get(family, "fc")
        logits = [getattr(self, classifier)(features[0])]
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
