"""Pictures and tables of a run. Everything here takes arrays and imports no JAX."""
