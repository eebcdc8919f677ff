"""Settings for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A job in the background of a script ignores Ctrl-C, and so do its children; the tests send it to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny matrices on one thread: faster, repeatable, and no fighting over two cores. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def shared_data() -> Path:
    """Real problem sets beside the repository, where they are present."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the shared data folder is not here")
    return path
