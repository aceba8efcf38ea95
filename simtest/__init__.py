"""A small simulated survey, the same for the same seed: what the demo and the tests run on."""
