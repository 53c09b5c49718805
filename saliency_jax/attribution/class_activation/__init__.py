"""Class activation maps: a layer's channels, weighted for a class and summed."""
