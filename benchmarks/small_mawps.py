"""Problems from MAWPS files in which every number, the answer included, is a whole number of at most LIMIT.

    python benchmarks/small_mawps.py OUT.jsonl LIMIT FILE.jsonl [FILE.jsonl ...]

The files hold rows {"input": ..., "target": ...}. Repeated questions are written once. Prints how many were kept.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def is_small(text: str, limit: int) -> bool:
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
    return bool(numbers) and all(n <= limit and n.is_integer() for n in numbers)


def main() -> None:
    out, limit, *files = sys.argv[1:]
    rows = [json.loads(line) for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    kept = {row["input"]: row for row in rows if is_small(f"{row['input']} {row['target']}", int(limit))}
    Path(out).write_text("".join(json.dumps(row) + "\n" for row in kept.values()), encoding="utf-8")
    print(f"{len(kept)} of {len(rows)} problems written to {out}")


if __name__ == "__main__":
    main()
