"""State, optimisers, steps, checkpoints and logs of `train.py`."""
