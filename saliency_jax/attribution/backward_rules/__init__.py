"""Backward passes by other rules than the gradient's, on any traced classifier."""
