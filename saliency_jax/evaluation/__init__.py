"""Passes of trained networks over a data set; what `evaluate.py` puts together."""
