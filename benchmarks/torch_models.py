"""The models of `benchmarks.models` in PyTorch; `[b, c, h, w]` in and out."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from benchmarks import models
from hdc.networks.resnet import DEPTHS, usual_rates


def network(name):
    """A model by its name."""
    match name:
        case "q":
            rates = (1, *models.RATES, *models.RATES)
            layers = [
                m for k, r in enumerate(rates) for m in (_conv(3 if k == 0 else 16, 16, 3, r), nn.ReLU())
            ]
            return nn.Sequential(*layers, nn.Conv2d(16, 6, 1))
        case "tcn":
            return Tcn()
        case "resnet18":
            backbone = Backbone()
            return Dense(nn.Sequential(backbone, nn.Conv2d(512, 6, 1)))
        case "deeplabv3":
            backbone, width = Backbone(models.NARROW), int(256 * models.NARROW)
            last = unit(width, width, 3)
            pyramid = Pyramid(backbone.widths[-1], width)
            return Dense(nn.Sequential(backbone, pyramid, last, nn.Conv2d(width, 6, 1)))
        case "deeplab":
            return Dense(_torchvision_deeplab())
    rates = (1, 1, 1) if name == "a" else models.RATES
    layers = []
    for position, ((i, o), rate) in enumerate(zip(models.WIDTHS, rates, strict=True)):
        layers += [_separable(i, o, rate) if name == "c" else _conv(i, o, 3, rate), nn.ReLU()]
        if name == "a" and position < 2:
            layers.append(nn.MaxPool2d(2))
    pooled = [] if name == "a" else [nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, *pooled, nn.Flatten(), nn.Linear(64 * 49 if name == "a" else 64, 10))


def _conv(i, o, size, rate=1, **keys):
    return nn.Conv2d(i, o, size, padding=rate * (size // 2), dilation=rate, **keys)


def _separable(i, o, rate):
    return nn.Sequential(_conv(i, i, 3, rate, groups=i, bias=False), nn.Conv2d(i, o, 1))


def unit(i, o, size, rate=1, stride=1, relu=True):
    """Convolution, batch normalisation, ReLU."""
    layers = [_conv(i, o, size, rate, stride=stride, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class Block(nn.Module):
    """A basic block of a residual network."""

    def __init__(self, i, o, stride, rates):
        super().__init__()
        self.body = nn.Sequential(unit(i, o, 3, rates[0], stride), unit(o, o, 3, rates[1], relu=False))
        self.shortcut = nn.Identity() if stride == 1 and i == o else unit(i, o, 1, stride=stride, relu=False)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class Backbone(nn.Sequential):
    """ResNet-18 of output stride 8 without its head."""

    def __init__(self, width=1.0):
        self.widths = [int((64 << stage) * width) for stage in range(4)]
        rates, channels = [1] * 8 + list(usual_rates(18, 8)), self.widths[0]
        layers = [*unit(3, channels, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
        for stage, count in enumerate(DEPTHS[18]):
            for number in range(count):
                stride = 2 if stage == 1 and number == 0 else 1
                layers.append(Block(channels, self.widths[stage], stride, (rates.pop(0), rates.pop(0))))
                channels = self.widths[stage]
        super().__init__(*layers)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling, and its projection."""

    def __init__(self, i, o):
        super().__init__()
        self.branches = nn.ModuleList([unit(i, o, 1)] + [unit(i, o, 3, rate) for rate in models.ASPP_RATES])
        self.image = unit(i, o, 1)
        self.project = unit((len(models.ASPP_RATES) + 2) * o, o, 1)

    def forward(self, x):
        whole = self.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.project(torch.cat([*(branch(x) for branch in self.branches), whole], 1))


class Dense(nn.Module):
    """A network whose maps are interpolated to the size of the images."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        y = self.net(x)
        return nn.functional.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)


class Tcn(nn.Module):
    """Blocks of two causal convolutions: both sides are padded, then the end is cut off."""

    def __init__(self):
        super().__init__()
        self.blocks, self.shortcuts, channels = nn.ModuleList(), nn.ModuleList(), 1
        for first, second in zip(models.TCN_RATES[::2], models.TCN_RATES[1::2], strict=True):
            layers = []
            for i, rate in ((channels, first), (models.TCN_WIDTH, second)):
                far = (models.TCN_KERNEL - 1) * rate
                conv = nn.Conv1d(i, models.TCN_WIDTH, models.TCN_KERNEL, padding=far, dilation=rate)
                layers += [weight_norm(conv), Cut(far), nn.ReLU(), nn.Dropout(models.TCN_DROPOUT)]
            self.blocks.append(nn.Sequential(*layers))
            alike = channels == models.TCN_WIDTH
            self.shortcuts.append(nn.Identity() if alike else nn.Conv1d(channels, models.TCN_WIDTH, 1))
            channels = models.TCN_WIDTH
        self.head = nn.Linear(channels, 10)

    def forward(self, x):
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            x = torch.relu(block(x) + shortcut(x))
        return self.head(x[:, :, -1])


class Cut(nn.Module):
    """Without the last steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def forward(self, x):
        return x[:, :, : -self.steps].contiguous()


def _torchvision_deeplab():
    """torchvision's DeepLabV3 up to its interpolation, without dropout."""
    from torchvision.models.segmentation import deeplabv3_resnet50

    net = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21)
    net.classifier[0].project[3] = nn.Identity()  # its dropout
    return nn.Sequential(_Maps(net.backbone), net.classifier)


class _Maps(nn.Module):
    """The last maps of a torchvision backbone."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)["out"]
