"""Public architectures written after their papers in plain Flax NNX, a file for each family.

Their sizes are arguments: the defaults are the published ones, tests take a few channels and blocks. Heads
that classify are left out: each model returns its last map.
"""
