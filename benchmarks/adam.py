"""The optimiser of the benchmarks, as a config section."""

ADAM = {
    "name": "adam",
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "schedule": "constant",
    "warmup_steps": 0,
}
