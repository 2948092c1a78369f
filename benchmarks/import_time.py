"""``import genaug`` against ``import numpy``, CPU seconds of fresh interpreters less an empty one."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from harness import emit, parser, row


def seconds(statement: str) -> float:
    """Return user plus system seconds of a fresh interpreter that runs `statement`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, taking turns."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=15)
    options = arguments.parse_args()
    statements = {"empty": "pass", "numpy": "import numpy", "genaug": "import genaug"}
    times: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(options.runs + 1):
        for name, statement in statements.items():
            times[name].append(seconds(statement))
    empty = statistics.median(times["empty"][1:])
    genaug = [max(t - empty, 1e-4) for t in times["genaug"][1:]]
    baseline = statistics.median(times["numpy"][1:]) - empty
    emit([row("import genaug (baseline: import numpy)", genaug, baseline, "s")], options.json)


if __name__ == "__main__":
    main()
