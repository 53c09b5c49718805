"""Images whose masks and classes are painted on them, and networks that read them.

The mask is the red channel and the predicted class the first pixel's blue one, so that
every figure follows from what was painted.
"""

import cv2
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax.data.sources import Source
from saliency_jax.models.classifier import Classifier
from saliency_jax.saliency import Masker

SIZE = 16
TEN = tuple(f"class {i}" for i in range(10))


@flax.struct.dataclass
class PaintedMasker(Masker):
    """A masker without networks, whose one variable scales the painted mask."""

    def predict(self, images, labels=None):
        channels = images.astype(jnp.float32)
        masks = channels[..., 0] / 255 * self.variables
        return masks, self.classifier(images)


class PaintedClass(nn.Module):
    """Ten classes: logit 1 for the one that is painted, 0 for the others."""

    def __call__(self, images, train):
        painted = jnp.round(255 * images[:, 0, 0, 2]).astype(jnp.int32)
        return jax.nn.one_hot(painted, 10), ()


def painted_masker():
    black, one = 3 * (0.0,), 3 * (1.0,)
    classifier = Classifier({}, PaintedClass(), black, one)
    return PaintedMasker(jnp.ones(()), classifier, nn.Module())


def paint(kept, predicted, label, boxes, also=None):
    """An example whose mask is 1 in `kept` (xyxy) and whose class is `predicted`.

    `also` is the (x, y) of one more pixel of the mask.
    """
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    xmin, ymin, xmax, ymax = kept
    image[ymin:ymax, xmin:xmax, 0] = 255
    if also:
        image[also[1], also[0], 0] = 255
    image[..., 2] = predicted
    pixels = np.asarray(boxes, np.int32).reshape(-1, 4)
    return {
        "image": cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
        "label": label,
        "boxes": (pixels[:, [1, 0, 3, 2]] / SIZE).astype(np.float32),
        "boxes_pixels": pixels,
        "original_size": np.array([SIZE, SIZE], np.int32),
    }


def source_of(records, class_names=TEN, max_boxes=2):
    return Source(
        name="painted",
        split="validation",
        class_names=class_names,
        max_boxes=max_boxes,
        num_with_boxes=sum(len(record["boxes"]) > 0 for record in records),
        has_object_masks=False,
        records=records,
    )
