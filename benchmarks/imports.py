"""What does it cost to start? CPU time of `import interp` against `import torch`, and of `interp --help`.

Each is a fresh process; the pairs alternate so that a busy machine slows both alike. CPU time (user + system), because
other work on the machine lengthens the wall clock and not this. Usage: python benchmarks/imports.py [--pairs 7]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

USE = "import interp; interp.load; interp.Site; interp.harvest; interp.metrics"
CASES = {
    "empty process": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import interp": [sys.executable, "-c", "import interp"],
    "import interp, names used": [sys.executable, "-c", USE],
    "interp --help": [sys.executable, "-m", "interp", "--help"],
}


def cost(command: list[str]) -> tuple[float, float]:
    """CPU seconds and wall seconds of one fresh process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of starting")
    parser.add_argument("--pairs", type=int, default=7, help="times that each case runs")
    pairs = parser.parse_args().pairs
    for command in CASES.values():
        cost(command)  # bytecode and the disk cache are warm for everyone
    rounds = [{name: cost(command) for name, command in CASES.items()} for _ in range(pairs)]
    print(f"{'case':<28}{'CPU s':>9}{'wall s':>9}{'CPU / import torch':>21}")
    for name in CASES:
        cpu = statistics.median(row[name][0] for row in rounds)
        wall = statistics.median(row[name][1] for row in rounds)
        ratio = statistics.median(row[name][0] / row["import torch"][0] for row in rounds)
        print(f"{name:<28}{cpu:>9.3f}{wall:>9.3f}{ratio:>21.3f}")
    for name in CASES:
        ratios = [row[name][0] / row["import torch"][0] for row in rounds]
        record = {
            "benchmark": "imports",
            "case": name,
            "n": pairs,
            "cpu_seconds_median": round(statistics.median(row[name][0] for row in rounds), 4),
            "wall_seconds_median": round(statistics.median(row[name][1] for row in rounds), 4),
            "ratio_to_import_torch": {
                "median": round(statistics.median(ratios), 4),
                "min": round(min(ratios), 4),
                "max": round(max(ratios), 4),
            },
        }
        print(json.dumps(record))


if __name__ == "__main__":
    main()
