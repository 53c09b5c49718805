"""What an example of a data set holds."""

from typing import Any

MASKS = ("object_mask", "other_mask")
"""The pixel masks that an example may have."""

Example = dict[str, Any]
"""One image with its annotation.

As a source gives it, `image` and the masks are encoded bytes:

    image          bytes, JPEG or PNG     -> uint8 [H, W, 3] once decoded
    label          int
    file_name      str
    boxes          float32 [N, 4]         ymin, xmin, ymax, xmax, relative
    boxes_valid    bool    [N]
    boxes_pixels   int32   [N, 4]         as filed
    original_size  int32   [2]            (width, height); absent if not filed
    upright        bool                   whether decoding obeys an EXIF orientation
    object_mask    bytes, only where the source has masks   -> bool [H, W]
    other_labels   int64 [n], only where images have several labels: the classes that
                   `label`, `boxes` and `object_mask` do not tell of
    other_mask     bytes, only where images have two objects (`shapes_pairs`): of the
                   other one                                -> bool [H, W]
"""
