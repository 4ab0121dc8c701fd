"""Variables of NASA's Common Data Format, by the library cdflib, which is optional (the extra `cdf`).

The library reads in a process of its own: on some damaged files it does not come to an end, on others it asks for all
the memory.
"""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

_SECONDS = 120
_READ = """
import io, sys
import cdflib, numpy
try:
    import resource
    most = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 2**31
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
except (ImportError, OSError, ValueError):
    pass  # other systems, or a lower limit already
content = io.BytesIO()
try:
    numpy.save(content, numpy.asarray(cdflib.CDF(sys.argv[1]).varget(sys.argv[2])), allow_pickle=False)
except MemoryError:
    sys.exit("it asks for more than 2 GiB")
sys.stdout.buffer.write(content.getvalue())
"""


def require_cdflib(file: Any) -> None:
    """Raises ValueError saying how to get the library if it is not installed; `file` needs it."""
    try:
        present = importlib.util.find_spec("cdflib") is not None
    except ValueError:  # something put None in its place
        present = False
    if not present:
        raise ValueError(
            f"{file} is in Common Data Format, which needs the library cdflib, which is not installed. Install it on "
            "every node with `pip install 'posegrid[cdf]'`, or use the .cdf.mat files of the same recordings."
        )


def read_cdf(file: Path, name: str) -> np.ndarray:
    """The variable `name`. Raises ValueError if the library is absent, the file damaged or another one."""
    require_cdflib(file)
    command = [sys.executable, "-c", _READ, str(file), name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").split("\n")
            raise OSError(next((line for line in reversed(lines) if line.strip()), f"status {done.returncode}"))
        return np.load(io.BytesIO(done.stdout), allow_pickle=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = f"not read within {_SECONDS} s" if isinstance(error, subprocess.TimeoutExpired) else error
        raise ValueError(
            f"{file} is damaged, cut or has no variable {name} ({reason}); expected a CDF file with {name}. Fetch it "
            "again."
        ) from None
