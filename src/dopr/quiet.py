"""Other libraries kept from talking over our own output, and imported without waste."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_libraries() -> None:
    """Call before importing torch or transformers: no telemetry, no progress bars, errors only.

    Nothing is fetched unless a hub name is given; local paths never touch the network.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers|trl|accelerate|peft")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("trl", "accelerate", "datasets", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def uncollected() -> Iterator[None]:
    """For heavy imports: no garbage collection inside, and none of what exists at the end is ever walked again.

    Importing torch, transformers and TRL makes 750,000 objects that stay; walking them over and over as they come is up to
    a fifth of the time the imports take. For programs that import once and then work, not for use inside a library.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
