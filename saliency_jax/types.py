"""Array aliases and the glossary of axis letters.

Axis letters, the same in every signature of the package:

    B  images in a batch          H W  image height and width, in pixels
    C  feature channels           h w  height and width of a feature map
    K  classes                    N    boxes of one image (padded in a batch)
    P  slots of a classifier pool           I    edited images in a chunk
    D  channels of a layer                  Z    numbers of a latent point

Conventions at every public boundary:

* Images are RGB, channels last, `uint8` in [0, 255] or `float32` in [0, 1].
  Normalisation belongs to the classifier, never to the caller.
* Masks are `float32 [B, H, W]` in [0, 1], where 1 means salient (kept).
* Boxes are `float32 [N, 4]` as `ymin, xmin, ymax, xmax`, half-open edges, relative
  to the image. `boxes_pixels` are the integers as filed: `xmin, ymin, xmax, ymax`
  in the pixels of an image of `original_size` = (width, height).
"""

from typing import Any

from jaxtyping import Array, Float, Int, Num

Images = Num[Array, "B H W 3"]
Masks = Float[Array, "B H W"]
Labels = Int[Array, "B"]
Logits = Float[Array, "B K"]

PyTree = Any

Batch = dict[str, Any]
"""What the pipeline yields; every value has a leading batch axis.

    image          uint8   [B, H, W, 3]
    label          int32   [B]
    valid          bool    [B]         False for the padding of a last batch
    boxes          float32 [B, N, 4]   relative to the image in this batch
    boxes_valid    bool    [B, N]      False for padding (and for a cropped-away box)
    boxes_pixels   int32   [B, N, 4]   as filed; -1 where padded
    original_size  int32   [B, 2]      (width, height) that `boxes_pixels` refers to
    object_mask    bool    [B, H, W]   only from sources that have pixel masks
    present        bool    [B, K]      only from sources of images with several labels:
                                       the classes that are there, the label's too
    other_mask     bool    [B, H, W]   only from sources of images with two objects: of
                                       the one that is not the label's
"""
