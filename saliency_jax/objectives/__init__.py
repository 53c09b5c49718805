"""Per-example losses: arrays in, `[B]` out; no config, no model, no reduction."""
