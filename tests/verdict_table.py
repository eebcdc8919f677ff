"""The table of (gold, completion, expected verdict, reason) in tests/data/math_verdicts.jsonl."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "data" / "math_verdicts.jsonl"


def verdict_rows() -> list[dict[str, Any]]:
    """Rows of the table; ``{x*1000}`` in the completion of a row marked ``repeat`` stands for a thousand times x."""
    rows = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row.pop("repeat", False):
            row["completion"] = re.sub(r"\{([^*]+)\*(\d+)\}", lambda m: m[1] * int(m[2]), row["completion"])
    return rows
