"""The same weights and images in PyTorch for captum, and the comparison.

captum is called as its users call it, with normalised images; a `Classifier` normalises
images in [0, 1] itself. So a gradient here is captum's divided by the standard
deviation of the normalisation, and an attribution, which is a gradient times a
difference of inputs, is the same.
"""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("captum")

from captum import attr  # noqa: E402

from tests.attribution import torch_twins  # noqa: E402
from tests.models.torch_resnet import from_torch  # noqa: E402

TOLERANCE = 1e-3

# For `pytestmark`: captum warns of the hooks that it sets.
MARKS = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:Setting .* hooks")]

twins_of = functools.cache(lambda name: torch_twins.TWINS[name]())
on_both = pytest.mark.parametrize("name", torch_twins.TWINS)


def assert_same(maps, expected, tolerance=TOLERANCE):
    """The greatest difference, on the scale of the greatest value."""
    maps = np.asarray(maps)
    if isinstance(expected, torch.Tensor):
        expected = from_torch(expected)
    assert maps.shape == expected.shape
    scale = np.abs(expected).max()
    error = np.abs(maps - expected).max() / scale
    print(f"relative error {error:.1e}")
    assert scale > 0 and error < tolerance


def by_pixel_value(twins, gradients):
    """captum's gradients, of normalised pixels, as those of pixels in [0, 1]."""
    return from_torch(gradients) / np.float32(twins.classifier.std)


def active_channel(twins, module):
    """A channel of a layer that is not switched off at row 1 and column 1."""
    values = attr.LayerActivation(twins.module, module).attribute(twins.inputs)
    return int(values[:, :, 1, 1].amin(dim=0).argmax())
