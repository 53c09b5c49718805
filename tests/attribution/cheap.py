"""Options that make each method fast enough for a test of all of them."""

CHEAP = {}
