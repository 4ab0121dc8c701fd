"""Lines and numbers of text files, with errors that name file and line."""

from pathlib import Path

import numpy as np


def damaged(path: Path, line: int, found: str, expected: str) -> ValueError:
    """The error for a file that cannot be read; `line` counts from 1."""
    return ValueError(
        f"{path}, line {line}: {found}; {expected}. Fetch the file again from its source, or take it out of the folder."
    )


def read_lines(path: Path) -> list[str]:
    """Lines of a text file whatever their ends (LF or CR LF, also mixed).

    Raises ValueError if it is empty, no text, or does not end with a line end: its last number may then be cut in two
    without any other sign.
    """
    try:
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged(path, 1, f"byte {error.start} is not text", "expected a plain ASCII file") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}). Check the path and its permissions.") from None
    lines = text.splitlines()
    if not text.endswith(("\n", "\r")):
        raise damaged(path, len(lines), "the last line has no end", "the file is empty or cut (if whole, end the line)")
    return lines


def numbers_of(path: Path, line: int, words: list[str]) -> list[float]:
    """Finite numbers of a line. Raises ValueError naming the word that is none."""
    numbers = []
    for word in words:
        try:
            number = float(word)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise damaged(path, line, f"{word!r} is no finite number", "every value must be one")
        numbers.append(number)
    return numbers
