"""What both libraries compute: the networks, their weights, the images."""

import dataclasses

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax.models import create
from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD
from saliency_jax.models.resnet import DEPTHS
from saliency_jax.models.weight_names import from_torch, torch_shape
from saliency_jax.objectives import casm
from saliency_jax.types import PyTree
from tests.models import reproducible

MEAN, STD = IMAGENET_MEAN, IMAGENET_STD
THINNING, SCORE = "L100", "entropy"
SAVE_EVERY = casm.thinning(THINNING).save_every
AREA_WEIGHT = casm.published_area_weight(THINNING, SCORE)

# The published optimisers of CASM; the classifier's is that of its own stage, too.
SGD = {
    "name": "sgd",
    "learning_rate": 1e-3,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "clip_norm": 0.0,
    "schedule": "constant",
    "warmup_steps": 0,
}
ADAM = SGD | {"name": "adam", "clip_norm": 10.0}

_MASKER = {
    "encoder": "shared",
    "taps": (0, 1, 2, 3, 4),
    "features": 64,
    "final_upsampling": "nearest",
}
_CELLS = 8  # of an image, in a row: plain noise looks the same to a network
_NOISE = 48  # on their colours: in an even one, maxima are ties that rounding decides
# Of each block's last BatchNorm. Without it a ResNet-50 of random weights is chaotic in
# training mode: PyTorch's own losses of the second step, in float32 and in float64,
# were up to 30 % apart.
_RESIDUAL_GAIN = 0.2

Arrays = dict[str, np.ndarray]
"""A network's weights by PyTorch's names, in PyTorch's order of axes."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Sizes.

    Attributes:
      network: one of `DEPTHS`, a ResNet.
      image_size: side of the images.
      batch_size: images in a batch.
      classes: that the classifier tells apart.
      width: channels of its first layer.
      slots: of the pool of past classifiers, all of them taken.
    """

    network: str
    image_size: int
    batch_size: int
    classes: int = 1000
    width: int = 64
    slots: int = 3

    @property
    def channels(self) -> list[int]:
        """Of the five maps that the masker reads."""
        wider = 4 if DEPTHS[self.network][1] else 1
        return [self.width, *(wider * self.width * 2**stage for stage in range(4))]

    def modules(self, dtype: str) -> tuple[nn.Module, nn.Module]:
        """Our classifier and masker."""
        classifier = create.create_classifier(
            {
                "network": self.network,
                "num_classes": self.classes,
                "width": self.width,
                "dtype": dtype,
            }
        )
        return classifier, create.create_masker(_MASKER, classifier)

    def shapes(self) -> dict[str, PyTree]:
        """Of our variables, those of "classifier" and "masker"."""
        init = lambda key: create.init_networks(*self.modules("float32"), key, 32)
        return jax.eval_shape(init, jax.random.key(0))

    def weights(self) -> dict[str, Arrays]:
        """Of "classifier" and "masker", and of a "past" classifier."""
        shapes = {
            name: {
                reproducible.torch_name(path): torch_shape(leaf.shape)
                for path, leaf in flax.traverse_util.flatten_dict(tree).items()
            }
            for name, tree in self.shapes().items()
        }
        # Values are a function of the names, so a past classifier has others.
        past = {f"past.{name}": of for name, of in shapes["classifier"].items()}
        arrays = {name: reproducible.state_dict(of) for name, of in shapes.items()}
        arrays["past"] = {
            name.removeprefix("past."): array
            for name, array in reproducible.state_dict(past).items()
        }
        last = ".bn3.weight" if DEPTHS[self.network][1] else ".bn2.weight"
        for name in ("classifier", "past"):
            for key in arrays[name]:
                if key.endswith(last):
                    arrays[name][key] *= np.float32(_RESIDUAL_GAIN)
        return arrays

    def images(self) -> np.ndarray:
        """uint8 images `[B, H, W, 3]` of coloured cells."""
        rng = np.random.default_rng(0)
        cells = rng.integers(0, 256, (self.batch_size, _CELLS, _CELLS, 3))
        side = -(-self.image_size // _CELLS)
        images = cells.repeat(side, axis=1).repeat(side, axis=2)
        images = images[:, : self.image_size, : self.image_size]
        noise = rng.integers(-_NOISE, _NOISE, images.shape, endpoint=True)
        return np.clip(images + noise, 0, 255).astype(np.uint8)


def as_flax(arrays: Arrays, like: PyTree) -> PyTree:
    """Weights by PyTorch's names as variables of the form of `like`."""
    flat = {
        path: jnp.asarray(from_torch(arrays[reproducible.torch_name(path)]))
        for path in flax.traverse_util.flatten_dict(like)
    }
    return flax.traverse_util.unflatten_dict(flat)
