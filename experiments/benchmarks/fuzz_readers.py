"""Damaged files for every reader of data: each must be read as what it says, or refused with a clear ValueError.

    python experiments/benchmarks/fuzz_readers.py --inputs 2400 --seed 0

makes whole files of every format (the table `fuzzing.attempts.TABLE` under tests/, which a test runs in small), damages
them and reads them in a worker process, with 20 seconds (180 for CDF, whose library may take 120) and 3 GiB for an
input. Kinds of damage: cut; one flipped bit; scrambled bytes; mistyped (something is of another type, shape or order,
or missing); hostile (made to run code or to fill the memory). The command needs a checkout with the extra `dev` and
exits with status 1 if any input was neither read correctly nor refused.

Read correctly means: every bit as in the whole file, or, for the formats marked with *, which have no checksums and
cannot tell a flipped digit from another number, what an independent parse finds in the damaged file.
"""

import argparse
import importlib
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[2] / "tests"
_KINDS = ("cut", "flip", "scramble", "mistyped", "hostile")


def run(inputs: list[Any], attempts: Any) -> dict[tuple[str, str], Counter[str]]:
    """Counts of the outcomes by format and kind; prints every other outcome as soon as it is there."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for wanted, outcome in attempts.outcomes(inputs):
        sound = outcome in attempts.SOUND
        counts.setdefault((wanted.format, wanted.kind), Counter())[outcome if sound else "other"] += 1
        if not sound:
            print(f'--again "{wanted.again}" --seed {wanted.seed}: {outcome}', flush=True)
    return counts


def print_table(counts: dict[tuple[str, str], Counter[str]], attempts: Any) -> Counter[str]:
    """One line per format and kind of damage, and the sum. Returns the sum."""
    columns = (*attempts.SOUND, "other")
    print(f"{'reader':36}{'damage':10}{'inputs':>8}{'read, same':>12}{'read, as *':>12}{'refused':>9}{'other':>7}")
    total: Counter[str] = Counter()
    for form in attempts.TABLE:
        for kind in _KINDS:
            found = counts.get((form.name, kind))
            if found:
                total += found
                print(f"{form.name + ('' if form.sealed else ' *'):36}{kind:10}{_cells(found, columns)}")
    print(f"{'all':46}{_cells(total, columns)}")
    return total


def _cells(found: Counter[str], columns: tuple[str, ...]) -> str:
    numbers = [found.total(), *(found[column] for column in columns)]
    return "".join(f"{value:>{width}}" for value, width in zip(numbers, (8, 12, 12, 9, 7), strict=True))


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Damaged files for every reader of data.")
    parser.add_argument("--inputs", type=int, default=2400, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn from")
    parser.add_argument("--only", default="", help="formats whose names begin so")
    parser.add_argument("--again", default="", help="one input, as printed for other outcomes: FORMAT/KIND/NUMBER")
    arguments = parser.parse_args()
    if not (_TESTS / "fuzzing").is_dir():
        parser.error(f"{_TESTS / 'fuzzing'} is missing: run this command in a checkout of posegrid")
    sys.path.insert(0, str(_TESTS))
    attempts = importlib.import_module("fuzzing.attempts")
    chosen = tuple(form for form in attempts.TABLE if form.name.startswith(arguments.only))
    if not chosen:
        parser.error(f"no format begins with {arguments.only!r}; there are {[form.name for form in attempts.TABLE]}")
    inputs = attempts.plan(arguments.inputs, arguments.seed, chosen)
    if arguments.again:
        name, kind, number = arguments.again.rsplit("/", 2)
        inputs = [attempts.Input(format=name, kind=kind, number=int(number), seed=arguments.seed)]
    began = time.monotonic()
    total = print_table(run(inputs, attempts), attempts)
    print(f"{total.total()} inputs, seed {arguments.seed}, {time.monotonic() - began:.0f} s")
    return 1 if total["other"] else 0


if __name__ == "__main__":
    sys.exit(main())
