"""Ligand-receptor pairs, and the statistics that say whether two partners lie together: one file each."""

from smeld.lr._resource import card, pairs
from smeld.lr._statistic import LRResult, lr_stats

__all__ = ["LRResult", "card", "lr_stats", "pairs"]
