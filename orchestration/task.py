"""What a worker must know to run one trial. Kept apart from the code that does it, which is slow to import."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from posegrid.datasets.addresses import is_address


@dataclass(frozen=True, kw_only=True)
class StageTask:
    """Everything a worker needs, as plain data."""

    key: str
    """Training fingerprint."""
    run_id: str
    """Run that receives the results."""
    settings: dict[str, Any]
    """Resolved settings (`Settings.plain`)."""
    patterns: list[dict[str, Any]]
    """Resolved test patterns still to score."""
    store: str
    """Data store: a folder that every worker can read, or an address from which each node fetches it once."""
    data_hash: str
    """Content hash that the store must have."""
    tracking: str
    """Address of the tracking store."""
    tracking_wait_s: float = 600.0
    """Seconds to wait for it where it is needed and does not answer."""
    upstream_run: str | None = None
    """Run of the trained conditioner."""
    fold_runs: list[str] = field(default_factory=list)
    """Runs of the lifters that were trained without one subject each, in the order of the settings' `folds`."""
    trained: bool = False
    """The run holds its model already: only score."""

    def plain(self) -> dict[str, Any]:
        """As plain data; `StageTask(**plain)` is the inverse."""
        return json.loads(json.dumps(asdict(self)))


def within(folder: str, name: str) -> str:
    """A folder in a folder or behind an address, whose options stay last: s3://bucket/state?region=eu-west-1."""
    place, mark, options = folder.partition("?") if is_address(folder) else (folder, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"
