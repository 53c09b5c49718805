"""Gradients of a score, and their averages and integrals."""
