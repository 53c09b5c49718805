"""Figures that make masks comparable; all take arrays and none imports JAX."""
