"""MobileNets, SqueezeNet, GoogLeNet, VGG and a small network, written in PyTorch.

The reference of the parity tests, with torchvision's names (MobileNetV1: Keras's, see
`keras_arrays`); torchvision itself is not needed. Each returns (logits, five maps).
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


def padded(x, padding, stride):
    """Zeros around maps before an unpadded 3x3 convolution, by each library's rule."""
    before_and_after = []
    for size in x.shape[2:]:
        if padding == "symmetric":
            before_and_after.append((1, 1))
        elif padding == "keras" and stride == 2:
            before_and_after.append((0, 1))
        else:  # TensorFlow's SAME
            outputs = -(-size // stride)
            total = max((outputs - 1) * stride + 3 - size, 0)
            before_and_after.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = before_and_after
    return F.pad(x, (left, right, top, bottom))


class Conv3x3(nn.Conv2d):
    def __init__(self, inputs, outputs, stride, padding, groups=1):
        super().__init__(inputs, outputs, 3, stride, groups=groups, bias=False)
        self.rule = padding

    def forward(self, x):
        return super().forward(padded(x, self.rule, self.stride[0]))


def divisible(value):
    new = max(8, int(value + 4) // 8 * 8)
    return new + 8 if new < 0.9 * value else new


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion, padding, epsilon):
        super().__init__()
        hidden = inputs * expansion
        norm = lambda channels: nn.BatchNorm2d(channels, eps=epsilon)
        layers = []
        if expansion != 1:
            layers.append(
                nn.Sequential(
                    nn.Conv2d(inputs, hidden, 1, bias=False), norm(hidden), nn.ReLU6()
                )
            )
        layers += [
            nn.Sequential(
                Conv3x3(hidden, hidden, stride, padding, groups=hidden),
                norm(hidden),
                nn.ReLU6(),
            ),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            norm(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class TorchMobileNetV2(nn.Module):
    def __init__(
        self, num_classes, width_multiplier=1.0, padding="symmetric", epsilon=1e-5
    ):
        super().__init__()
        norm = lambda channels: nn.BatchNorm2d(channels, eps=epsilon)
        inputs = divisible(32 * width_multiplier)
        features = [
            nn.Sequential(Conv3x3(3, inputs, 2, padding), norm(inputs), nn.ReLU6())
        ]
        for t, c, n, s in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for i in range(n):
                outputs = divisible(c * width_multiplier)
                stride = s if i == 0 else 1
                block = InvertedResidual(inputs, outputs, stride, t, padding, epsilon)
                features.append(block)
                inputs = outputs
        last = divisible(1280 * max(1.0, width_multiplier))
        features.append(
            nn.Sequential(
                nn.Conv2d(inputs, last, 1, bias=False), norm(last), nn.ReLU6()
            )
        )
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, x):
        taps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in (2, 3, 6, 13, 18):
                taps.append(x)
        return self.classifier[1](x.mean((2, 3))), taps


class TorchMobileNetV1(nn.Module):
    def __init__(
        self, num_classes, width_multiplier=1.0, padding="tensorflow", epsilon=1e-3
    ):
        super().__init__()
        inputs = int(32 * width_multiplier)
        self.conv1 = Conv3x3(3, inputs, 2, padding)
        self.conv1_bn = nn.BatchNorm2d(inputs, eps=epsilon)
        channels = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
        strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
        for i, (c, stride) in enumerate(zip(channels, strides, strict=True), start=1):
            outputs = int(c * width_multiplier)
            depthwise = Conv3x3(inputs, inputs, stride, padding, groups=inputs)
            pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
            for name, layer in (("dw", depthwise), ("pw", pointwise)):
                norm = nn.BatchNorm2d(layer.out_channels, eps=epsilon)
                setattr(self, f"conv_{name}_{i}", layer)
                setattr(self, f"conv_{name}_{i}_bn", norm)
            inputs = outputs
        self.conv_preds = nn.Conv2d(inputs, num_classes, 1)

    def forward(self, x):
        taps = []
        layers = dict(self.named_children())
        x = F.relu6(self.conv1_bn(self.conv1(x)))
        for i in range(1, 14):
            for kind in ("dw", "pw"):
                name = f"conv_{kind}_{i}"
                x = F.relu6(layers[f"{name}_bn"](layers[name](x)))
            if i in (2, 3, 5, 11, 13):
                taps.append(x)
        return self.conv_preds(x.mean((2, 3), keepdim=True))[:, :, 0, 0], taps


KERAS_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def keras_arrays(arrays):
    """`TorchMobileNetV1`'s arrays as Keras names and lays them out."""
    renamed = {}
    for name, array in arrays.items():
        layer, kind = name.split(".")
        if layer.endswith("_bn"):
            renamed[f"{layer}/{KERAS_BATCH_NORM[kind]}"] = array
        elif kind == "bias":
            renamed[f"{layer}/bias"] = array
        elif "_dw_" in layer:  # C1HW -> HWC1
            renamed[f"{layer}/depthwise_kernel"] = array.transpose(2, 3, 0, 1)
        else:  # OIHW -> HWIO
            renamed[f"{layer}/kernel"] = array.transpose(2, 3, 1, 0)
    return renamed


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class TorchSqueezeNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2),
            nn.ReLU(),
            pool(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            pool(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            pool(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, num_classes, 1))

    def forward(self, x):
        taps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in (2, 4, 7, 10, 12):
                taps.append(x)
        return F.relu(self.classifier[1](x)).mean((2, 3)), taps


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, side, epsilon, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=epsilon)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, inputs, one, in3, out3, in5, out5, pool, epsilon):
        super().__init__()
        layer = lambda i, o, side: ConvNorm(i, o, side, epsilon)
        self.branch1 = layer(inputs, one, 1)
        self.branch2 = nn.Sequential(layer(inputs, in3, 1), layer(in3, out3, 3))
        self.branch3 = nn.Sequential(layer(inputs, in5, 1), layer(in5, out5, 3))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1, ceil_mode=True), layer(inputs, pool, 1)
        )

    def forward(self, x):
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class TorchGoogLeNet(nn.Module):
    def __init__(self, num_classes, epsilon=1e-3):
        super().__init__()
        self.conv1 = ConvNorm(3, 64, 7, epsilon, 2)
        self.conv2 = ConvNorm(64, 64, 1, epsilon)
        self.conv3 = ConvNorm(64, 192, 3, epsilon)
        make = lambda *channels: Inception(*channels, epsilon)
        self.inception3a = make(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = make(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = make(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = make(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = make(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = make(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = make(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = make(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = make(832, 384, 192, 384, 48, 128, 128)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x):
        pool = lambda x, side: F.max_pool2d(x, side, 2, ceil_mode=True)
        first = pool(self.conv1(x), 3)
        second = self.conv3(self.conv2(first))
        third = self.inception3b(self.inception3a(pool(second, 3)))
        x = self.inception4b(self.inception4a(pool(third, 3)))
        fourth = self.inception4e(self.inception4d(self.inception4c(x)))
        fifth = self.inception5b(self.inception5a(pool(fourth, 2)))
        taps = [first, second, third, fourth, fifth]
        return self.fc(fifth.mean((2, 3))), taps


class TorchVGG(nn.Module):
    def __init__(self, plan, norm, num_classes, width=64, epsilon=1e-5):
        super().__init__()
        layers, inputs = [], 3
        for channels in plan:
            if channels == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            outputs = channels * width // 64
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            if norm:
                layers.append(nn.BatchNorm2d(outputs, eps=epsilon))
            layers.append(nn.ReLU())
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        hidden = 4096 * width // 64
        self.classifier = nn.Sequential(
            nn.Linear(inputs * 7 * 7, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x):
        activations, pooled = [], []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                activations.append(x)
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(x)
        x = torch.flatten(self.avgpool(x), 1)
        for layer in self.classifier:  # without dropout, in training too
            x = x if isinstance(layer, nn.Dropout) else layer(x)
        return x, [pooled[1], *activations[2:], pooled[4]]


# torchvision's own table.
VGG_PLANS = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg13": (
        *(64, 64, "M", 128, 128, "M", 256, 256, "M"),
        *(512, 512, "M", 512, 512, "M"),
    ),
    "vgg16": (
        *(64, 64, "M", 128, 128, "M", 256, 256, 256, "M"),
        *(512, 512, 512, "M", 512, 512, 512, "M"),
    ),
    "vgg19": (
        *(64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M"),
        *(512, 512, 512, 512, "M", 512, 512, 512, 512, "M"),
    ),
}


class TorchSmallCnn(nn.Module):
    def __init__(self, num_classes, width=32, epsilon=1e-5):
        super().__init__()
        inputs = 3
        for i, factor in enumerate((1, 2, 4, 8, 8), start=1):
            outputs = factor * width
            setattr(self, f"conv{i}", nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(outputs, eps=epsilon))
            inputs = outputs
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x):
        layer = lambda i, x: F.relu(
            getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
        )
        taps = [F.max_pool2d(layer(1, x), 2)]
        taps.append(layer(2, taps[0]))
        for i in (3, 4, 5):
            taps.append(layer(i, F.max_pool2d(taps[-1], 2)))
        return self.fc(taps[-1].mean((2, 3))), taps


NETWORKS = {
    "mobilenet_v1": TorchMobileNetV1,
    "mobilenet_v2": TorchMobileNetV2,
    "squeezenet1_1": TorchSqueezeNet,
    "googlenet": TorchGoogLeNet,
    "small_cnn": TorchSmallCnn,
} | {
    f"{name}{suffix}": partial(TorchVGG, plan, suffix == "_bn")
    for name, plan in VGG_PLANS.items()
    for suffix in ("", "_bn")
}
