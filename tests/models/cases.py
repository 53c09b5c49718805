"""The networks of the parity tests: blocks, classes, width and images."""

from typing import NamedTuple

from saliency_jax.models.resnet import DEPTHS


class Case(NamedTuple):
    """A ResNet in evaluation mode, or in training mode with batch statistics."""

    stage_sizes: tuple[int, ...]
    bottleneck: bool
    num_classes: int
    width: int
    images: tuple[int, ...]
    train: bool


# The sides give every stride and the max-pool odd and even sizes. In training mode a
# deep network of random weights multiplies rounding errors (PyTorch's own ResNet-50 in
# float32 is 3e-4 from its float64), so the bottleneck case has one block a stage.
CASES = {
    "resnet18": Case(*DEPTHS["resnet18"], 1000, 64, (2, 68, 90, 3), False),
    "resnet50": Case(*DEPTHS["resnet50"], 1000, 64, (2, 68, 90, 3), False),
    "basic_train": Case(*DEPTHS["resnet18"], 10, 8, (4, 68, 90, 3), True),
    "bottleneck_train": Case((1, 1, 1, 1), True, 10, 8, (4, 68, 90, 3), True),
}
