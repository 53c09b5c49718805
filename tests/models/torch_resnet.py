"""torchvision's ResNet and CASM's masker in PyTorch, with torchvision's names.

The reference of the parity tests; torchvision itself is not needed.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, inputs, features, stride, bottleneck):
        super().__init__()
        outputs = 4 * features if bottleneck else features
        if bottleneck:
            geometry = [
                (inputs, features, 1, 1),
                (features, features, 3, stride),
                (features, outputs, 1, 1),
            ]
        else:
            geometry = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        self.depth = len(geometry)
        for i, (before, after, kernel, step) in enumerate(geometry, start=1):
            conv = nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(after))
            setattr(self, f"relu{i}", nn.ReLU())  # captum hooks modules, used once
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = getattr(self, f"relu{i}")(y)
        skipped = x if self.downsample is None else self.downsample(x)
        return getattr(self, f"relu{self.depth}")(y + skipped)


class TorchResNet(nn.Module):
    """Images [B, 3, H, W] to (logits, five maps)."""

    def __init__(self, stage_sizes, bottleneck, num_classes, width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        inputs = width
        for stage, blocks in enumerate(stage_sizes):
            features = width * 2**stage
            layer = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(Block(inputs, features, stride, bottleneck))
                inputs = 4 * features if bottleneck else features
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = F.max_pool2d(self.relu1(self.bn1(self.conv1(x))), 3, 2, 1)
        taps = [x]
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            taps.append(x)
        return self.fc(x.mean((2, 3))), taps


class TorchMasker(nn.Module):
    """The decoder of kondiz/casme, over any selection of the maps."""

    def __init__(self, channels, selected):
        super().__init__()
        self.selected = selected
        for i in selected:
            if i > 0:
                self.add_module(f"conv_{i}", nn.Conv2d(channels[i], 64, 1, bias=False))
                self.add_module(f"bn_{i}", nn.BatchNorm2d(64))
        inputs = sum(channels[0] if i == 0 else 64 for i in selected)
        self.final = nn.Conv2d(inputs, 1, 3, padding=1)

    def forward(self, taps, size):
        maps = []
        for i in self.selected:
            x = taps[i]
            if i > 0:
                bn, conv = getattr(self, f"bn_{i}"), getattr(self, f"conv_{i}")
                x = F.interpolate(
                    F.relu(bn(conv(x))),
                    taps[0].shape[2:],
                    mode="bilinear",
                    align_corners=False,
                )
            maps.append(x)
        mask = torch.sigmoid(self.final(torch.cat(maps, 1)))
        return F.interpolate(mask, size, mode="nearest-exact")[:, 0]


class Logits(nn.Module):
    """A network without its maps."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)[0]


def shapes_of(module):
    """Names and shapes of a module's arrays, counters left out."""
    return {
        name: tuple(value.shape)
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def load(module, arrays):
    """Sets a module's arrays to numpy ones of the same names."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    module.load_state_dict(tensors, strict=False)
    return module


def to_torch(array):
    """[B, h, w, C] numpy -> [B, C, h, w] tensor."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def from_torch(tensor):
    """[B, C, h, w] tensor -> [B, h, w, C] numpy."""
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def biased_running_variances(module, forward):
    """Runs `forward()` in training mode; returns its answer and Flax's variances.

    PyTorch files the unbiased variance, n / (n - 1) times the biased one that it
    normalises with and that Flax files.
    """
    counts = {}
    hooks = []
    before = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            before[name] = layer.running_var.clone()
            hook = lambda _, inputs, __, name=name: counts.__setitem__(
                name, inputs[0].numel() // inputs[0].shape[1]
            )
            hooks.append(layer.register_forward_hook(hook))
    module.train()
    outputs = forward()
    for hook in hooks:
        hook.remove()
    layers = dict(module.named_modules())
    variances = {}
    for name, count in counts.items():
        kept = 0.9 * before[name]
        fresh = (layers[name].running_var - kept) * (count - 1) / count
        variances[f"{name}.running_var"] = (kept + fresh).numpy()
    return outputs, variances
