"""Images with labels and boxes: builders, sources, transforms, grain pipeline."""
