"""Simulated tissue sections whose truth is known."""

from smeld.datasets._reference import simulate_niches, simulate_reference
from smeld.datasets._simulate import simulate

__all__ = ["simulate", "simulate_niches", "simulate_reference"]
