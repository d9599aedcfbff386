"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("smeld", deadline=None, max_examples=15, derandomize=True)
settings.load_profile("smeld")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real sections beside the repository; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SMELD_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real sections are not at {folder} (set SMELD_SHARED_DATA)")
    return folder
