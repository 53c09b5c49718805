"""Figures that make maps and masks comparable; all take arrays.

Only `faithfulness`, which asks a classifier again, imports JAX.
"""
