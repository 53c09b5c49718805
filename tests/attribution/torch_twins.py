"""The same classifiers in PyTorch and in JAX, for comparison with captum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from saliency_jax.models.classifier import Classifier
from saliency_jax.models.resnet import ResNet
from saliency_jax.models.weights import load_weights
from tests.attribution import small_network
from tests.models import reproducible, torch_resnet


class Twins(NamedTuple):
    """A classifier and what captum needs to explain the same logits.

    Attributes:
      classifier: in JAX; it normalises the images.
      module: in PyTorch, from normalised images `[B, 3, H, W]` to logits.
      layers: pairs of the same layer: its name here, and its module there.
      images: `[B, H, W, 3]` in [0, 1].
      targets: a class for each.
    """

    classifier: Classifier
    module: nn.Module
    layers: dict[str, nn.Module]
    images: np.ndarray
    targets: np.ndarray

    @property
    def inputs(self) -> torch.Tensor:
        """The images as the module wants them."""
        return self.normalised(self.images).requires_grad_()

    @property
    def labels(self) -> torch.Tensor:
        """The targets for captum."""
        return torch.from_numpy(self.targets)

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """Any images as the module wants them."""
        mean, std = (np.float32(x) for x in (self.classifier.mean, self.classifier.std))
        return torch_resnet.to_torch((images - mean) / std)


class TorchSmallNetwork(nn.Module):
    """`small_network.SmallNetwork`, every layer a module that is used once.

    Without BatchNorm where that has been folded into the convolution before it.
    """

    def __init__(self, folded=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.bn2 = None if folded else nn.BatchNorm2d(12)
        self.relu2 = nn.ReLU()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, small_network.CLASSES)

    def forward(self, x):
        x = self.conv2(self.pool(self.relu1(self.conv1(x))))
        if self.bn2 is not None:
            x = self.bn2(x)
        return self.fc(self.average(self.relu2(x)).flatten(1))


def small() -> Twins:
    """A chain of layers."""
    classifier = small_network.classifier()
    module = TorchSmallNetwork()
    torch_resnet.load(module, _small_arrays(classifier.variables))
    layers = {"tap_0": module.relu2, "conv2": module.conv2, "conv1": module.conv1}
    images = small_network.images(3)
    return Twins(classifier, module.eval(), layers, images, np.array([0, 4, 2]))


def folded(twins: Twins) -> nn.Module:
    """The module of `small` with its normalisation in the weights, for captum's LRP."""
    arrays = {key: value.numpy() for key, value in twins.module.state_dict().items()}
    norm = {key[4:]: value for key, value in arrays.items() if key.startswith("bn2.")}
    scale = norm["weight"] / np.sqrt(norm["running_var"] + twins.module.bn2.eps)
    arrays["conv2.weight"] = arrays["conv2.weight"] * scale[:, None, None, None]
    shifted = arrays["conv2.bias"] - norm["running_mean"]
    arrays["conv2.bias"] = shifted * scale + norm["bias"]
    module = TorchSmallNetwork(folded=True)
    names = torch_resnet.shapes_of(module)
    return torch_resnet.load(module, {key: arrays[key] for key in names}).eval()


def _small_arrays(variables: Any) -> dict[str, np.ndarray]:
    params, statistics = variables["params"], variables["batch_stats"]["bn2"]
    arrays = {
        "bn2.weight": params["bn2"]["scale"],
        "bn2.bias": params["bn2"]["bias"],
        "bn2.running_mean": statistics["mean"],
        "bn2.running_var": statistics["var"],
        "fc.weight": params["fc"]["kernel"].T,
        "fc.bias": params["fc"]["bias"],
    }
    for name in ("conv1", "conv2"):
        arrays[f"{name}.weight"] = params[name]["kernel"].transpose(3, 2, 0, 1)
        arrays[f"{name}.bias"] = params[name]["bias"]
    return {name: np.array(array) for name, array in arrays.items()}


def resnet() -> Twins:
    """A residual network: strides, a padded max-pooling, connections that skip."""
    network = torch_resnet.TorchResNet((1, 1, 1, 1), False, 11, width=8).eval()
    arrays = reproducible.state_dict(torch_resnet.shapes_of(network))
    torch_resnet.load(network, arrays)
    module = ResNet((1, 1, 1, 1), False, 11, width=8)
    classifier = Classifier(
        load_weights(arrays, module), module, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    )
    layers = {
        "tap_4": network.layer4,
        "tap_2": network.layer2,
        "layer3_0/conv2": network.layer3[0].conv2,
    }
    random = np.random.default_rng(0)
    coarse = random.uniform(size=(2, 8, 10, 3)).astype(np.float32)
    images = np.asarray(jax.image.resize(jnp.asarray(coarse), (2, 64, 80, 3), "linear"))
    return Twins(
        classifier, torch_resnet.Logits(network), layers, images, np.array([7, 3])
    )


TWINS = {"small": small, "resnet": resnet}
