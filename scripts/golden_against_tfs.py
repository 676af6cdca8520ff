"""Plays the golden vectors (tests/golden) against a real TensorFlow Serving and prints a table.

    ISTHMUS_TFS=host:grpc_port,host:rest_port python scripts/golden_against_tfs.py [GROUP ...]

Run it in an environment with the official stubs. The server must serve the models and labels of
`golden.models`; tests/golden/README.md says how to start one. Exits with 1 where a vector differs.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from golden.runner import Runner  # noqa: E402  (found by the line above)
from golden.vectors import load  # noqa: E402
from real.golden.support import REAL, address_of  # noqa: E402


def main(groups: Sequence[str]) -> int:
    """Prints a line a vector, with the differences below it; returns the exit status."""
    text = os.environ.get(REAL, "")
    try:
        target = address_of(text)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    vectors = [v for v in load() if not groups or v.id.partition(".")[0] in groups]
    differing = 0
    with Runner(target) as runner:
        for vector in filter(runner.can, vectors):
            found = runner.run(vector)
            differing += bool(found)
            print(f"{'differs' if found else 'same':8} {vector.id:50} {vector.source}")
            for line in found:
                print(f"{'':9}{line}")
    print(f"{len(vectors)} vectors, {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
