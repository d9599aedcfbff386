"""Simulated tissue sections whose truth is known."""

from smeld.datasets._simulate import simulate

__all__ = ["simulate"]
