"""Benchmarks of time and peak memory, for asv."""
