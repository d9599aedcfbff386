"""``python -m smeld``."""

from smeld.cli import entry

entry()
