"""One mask for each image, found by descent or by search."""
