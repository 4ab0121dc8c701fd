"""A study whose workers, nodes, driver and tracking server are killed at random, against the same study left alone.

    python -m posegrid.experiments.benchmarks.chaos --folder FOLDER [--trials 24 --kills 30 --seed 0]

Runs a grid (half lifters, half wrappers on them) twice on a cluster of several nodes on this machine, with a real
MLflow server (SQLite, artifacts through the server): once undisturbed, then with kills at seeded random moments; a
command that ends is repeated at once, as by a patient user. Then compares what the two servers hold
(`chaos_compare.py`), prints what the kills cost, and exits with status 1 if anything differs. Nothing but what was
started here is killed, each process by its id. `--trials 4 --kills 5` is a small version; `--launch local` kills the
command and the server only, and needs no Ray.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from posegrid.experiments.benchmarks.chaos_compare import counts, differences, read
from posegrid.experiments.benchmarks.plan_thousand import made_up_store
from posegrid.orchestration.launch.rehearsal import Rehearsal, descendants, kill, rehearsal
from posegrid.orchestration.tracking import sqlite_uri

LIFTER = """[model]
name = "mixste"
width = 16
depth = 1
heads = 2
[data]
frames = 9
[training]
epochs = {epochs}
batch = 64
lr = 1e-3
schedule = "cosine"
[evaluation]
batch = 64
"""
WRAPPER = """[model]
name = "diffhpe"
conditioning = "lifter"
channels = 8
blocks = 2
steps = 4
step_embedding = 16
dropout = 0.1
[conditioner]
recipe = "{lifter}"
[data]
frames = 9
[training]
epochs = {epochs}
batch = 64
lr = 1e-3
[evaluation]
batch = 64
hypotheses = 2
"""
GRID = """title = "Killed at random"
train = ["leg_run"]
test = ["leg_run"]
seeds = {seeds}
[[members]]
recipe = "{lifter}"
label = "lifter"
[[members]]
recipe = "{wrapper}"
label = "wrapper"
"""
SHARES = {
    "ray": {"worker": 12, "node": 6, "driver": 6, "server": 6},
    "local": {"driver": 15, "server": 15},
}
"""Kinds of kills with each launcher, in these proportions."""
_GAPS = (0.4, 1.6)
"""Between kills, as shares of the seconds of the undisturbed study divided by the kills, or of the least mean."""
_LEAST_GAP_S = 12.0
_AWAY_S = (3.0, 60.0)
"""How long a killed server stays away."""
_PATIENCE_S = 3600.0


class Server:
    """An MLflow server that can be killed and started again."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `answers` tells when it is there."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", sqlite_uri(self._home / "mlflow.db")]
        command += ["--artifacts-destination", str(self._home / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
        except OSError:
            return False
        return True

    def wait(self) -> None:
        """Until it is there."""
        while not self.answers():
            time.sleep(0.3)

    def kill(self) -> None:
        """End it without notice."""
        assert self._process is not None
        kill([self._process.pid, *descendants(self._process.pid)])
        self._process.wait()


@dataclass(kw_only=True)
class Kill:
    """One kill and what it cost."""

    kind: str
    at_s: float
    """Seconds after the study began."""
    began: float
    seen: set[int]
    """Workers that there were before."""
    back_s: float | None = None
    """Seconds until somebody trained again that had not before, or until the server answered."""
    idle: bool = False
    """It took nothing that was at work."""


@dataclass(kw_only=True)
class Disturber:
    """Kills at random moments while a study runs, and repeats the command of the study."""

    command: list[str]
    server: Server
    cluster: Rehearsal | None
    log: Path
    random: random.Random
    kinds: list[str]
    gap_s: float = 0.0
    """Mean time between kills."""
    kills: list[Kill] = field(default_factory=list)
    commands: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _restart_at: float | None = None
    _seen: set[int] = field(default_factory=set)

    def run(self) -> float:
        """Run the study to its end; returns the seconds it took."""
        began = time.monotonic()
        next_kill = began + self.gap_s * self.random.uniform(*_GAPS)
        self._start()
        while True:
            now = time.monotonic()
            self._look(now)
            if self.cluster is not None:
                self.cluster.keep()
            if self._restart_at is not None and now >= self._restart_at:
                self.server.start()
                self._restart_at = None
            assert self._process is not None
            status = self._process.poll()
            if status == 0:
                break
            if status is not None:
                print(f"  {now - began:4.0f} s: the command ended with status {status}", flush=True)
                time.sleep(2)
                self._start()
            if self.kinds and now >= next_kill and self._strike(now - began):
                next_kill = time.monotonic() + self.gap_s * self.random.uniform(*_GAPS)
            if now - began > _PATIENCE_S:
                raise SystemExit(f"the study did not end within {_PATIENCE_S:.0f} s; see {self.log}")
            time.sleep(0.3)
        if self._restart_at is not None:
            self.server.start()
            self.server.wait()
        return time.monotonic() - began

    def end(self) -> None:
        """End the command if it still runs."""
        if self._process is not None and self._process.poll() is None:
            kill([self._process.pid])
            self._process.wait()

    def _start(self) -> None:
        self.commands += 1
        with self.log.open("ab") as log:
            log.write(f"--- command {self.commands}\n".encode())
            log.flush()
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def _look(self, now: float) -> None:
        """Note what has come back."""
        workers = set() if self.cluster is None else set(self.cluster.workers())
        for one in self.kills:
            if one.back_s is not None or one.idle:
                continue
            back = self.server.answers() if one.kind == "server" else bool(workers - one.seen)
            if back and (one.kind != "server" or self._restart_at is None):
                one.back_s = now - one.began
        self._seen |= workers

    def _strike(self, at_s: float) -> bool:
        """Kill what is due; False if there is nothing to kill now."""
        kind, idle = self.kinds[0], False
        before = set(self._seen)
        if kind == "worker":
            assert self.cluster is not None
            alive = self.cluster.workers()
            if not alive:
                return False
            kill([self.random.choice(alive)])
        elif kind == "node":
            assert self.cluster is not None
            idle = not self.cluster.lose_node(self.random.randrange(10**6))
            self.cluster.add_node()
        elif kind == "driver":
            assert self._process is not None
            if self._process.poll() is not None:
                return False
            kill([self._process.pid])
            self._process.wait()
            self._start()
        else:
            if self._restart_at is not None or not self.server.answers():
                return False
            self.server.kill()
            self._restart_at = time.monotonic() + self.random.uniform(*_AWAY_S)
        self.kinds.pop(0)
        self.kills.append(Kill(kind=kind, at_s=at_s, began=time.monotonic(), seen=before, idle=idle))
        print(f"  {at_s:4.0f} s: {kind} killed ({len(self.kills)})", flush=True)
        return True


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    """A server whose files are in `home`, ended at the end of the block."""
    home.mkdir(parents=True)
    server = Server(home)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def once(
    folder: Path, name: str, nodes: int, kinds: list[str], gap_s: float = 0.0, seed: int = 0
) -> tuple[float, Disturber]:
    """Run the study in `folder/name` with these kills; returns the seconds it took, and what was killed.

    nodes: 0 runs it without Ray.
    """
    home = folder / name
    print(f"{name}:", flush=True)
    practice = rehearsal(nodes, nodes, home / "nodes.log") if nodes else nullcontext()
    with serving(home) as server, practice as cluster:
        command = [sys.executable, "-m", "posegrid.experiments.cli", "grid", str(folder / "chaos.toml")]
        command += ["--data", str(folder / "store"), "--study", "chaos", "--home", str(home)]
        command += ["--tracking", server.uri, "--storage", str(home / "state")]
        command += ["--launch", "local"] if cluster is None else ["--address", cluster.address]
        one = Disturber(
            command=command,
            server=server,
            cluster=cluster,
            log=home / "command.log",
            random=random.Random(seed),
            kinds=kinds,
            gap_s=gap_s,
        )
        try:
            seconds = one.run()
        finally:
            one.end()
    print(f"  {seconds:.0f} s, {one.commands} command(s)", flush=True)
    return seconds, one


def table(kills: list[Kill], shares: dict[str, int], lost_s: float) -> str:
    """Kills by kind, and what they cost."""
    lines = ["| kind | kills | back after, median (longest) | of them took nothing at work |", "|---|---|---|---|"]
    for kind in shares:
        own = [one for one in kills if one.kind == kind]
        back = [one.back_s for one in own if one.back_s is not None]
        told = f"{median(back):.0f} s ({max(back):.0f} s)" if back else "-"
        lines.append(f"| {kind} | {len(own)} | {told} | {sum(one.idle for one in own)} |")
    each = lost_s / max(len(kills), 1)
    return "\n".join([*lines, f"time lost: {lost_s:.0f} s in all, {each:.1f} s a kill"])


def main() -> None:
    """Run both studies, compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="it is kept; an undisturbed study in it is used")
    parser.add_argument("--trials", type=int, default=24, help="even: half lifters, half wrappers")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--nodes", type=int, default=2, help="of one core each, beside the head")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--launch", choices=tuple(SHARES), default="ray")
    given = parser.parse_args()
    shares, nodes = SHARES[given.launch], given.nodes if given.launch == "ray" else 0
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    made_up_store(folder)
    lifter, wrapper = folder / "lifter.toml", folder / "wrapper.toml"
    lifter.write_text(LIFTER.format(epochs=given.epochs))
    wrapper.write_text(WRAPPER.format(lifter=lifter, epochs=given.epochs))
    seeds = list(range(given.trials // 2))
    (folder / "chaos.toml").write_text(GRID.format(seeds=seeds, lifter=lifter, wrapper=wrapper))
    took = folder / "undisturbed" / "seconds"
    if not took.exists():
        took.write_text(str(once(folder, "undisturbed", nodes, [])[0]))
    plain_s = float(took.read_text())
    kinds = [kind for kind, share in shares.items() for _ in range(share)]
    kinds = [kinds[number * len(kinds) // given.kills % len(kinds)] for number in range(given.kills)]
    random.Random(given.seed).shuffle(kinds)
    gap_s = max(plain_s / given.kills, _LEAST_GAP_S)
    killed_s, disturbed = once(folder, "disturbed", nodes, kinds, gap_s, given.seed)
    print(
        f"\nundisturbed {plain_s:.0f} s, disturbed {killed_s:.0f} s, the command was given {disturbed.commands} times"
    )
    print(table(disturbed.kills, shares, killed_s - plain_s))
    plain, killed = read(folder / "undisturbed"), read(folder / "disturbed")
    print(f"\nundisturbed: {counts(plain)}\ndisturbed: {counts(killed)}")
    found = list(differences(plain, killed))
    if disturbed.kinds:
        found.append(f"the study ended before {len(disturbed.kinds)} of the kills: give it more --trials or --epochs")
    print("\n".join(["", *(f"DIFFERENT: {line}" for line in found)]) if found else "equal")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
