"""Test hosts: machines made of kernel namespaces, each with its own address, processes, files and sshd on port 22.

    with Hosts(4, shared=[Path(sys.prefix)], written=[tmp_path]) as hosts:
        hosts.run(0, "hostname")

They hang on one bridge, in a network of their own that leads nowhere else; this machine is its gateway. Files that a
host writes lie in memory and are gone with it; `shared` folders of this machine are seen read-only, `written` ones are
written by all, like a network file system. Root's home, /tmp, /run and other top folders are empty and private. Not
separate: the kernel, the clock, CPUs and memory. No security boundary: for trusted code only. Needs root, `PROGRAMS`,
and kernel support for network, mount, pid, uts and ipc namespaces and overlays.
"""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PROGRAMS = ("ip", "unshare", "nsenter", "mount", "umount", "pivot_root", "ssh", "ssh-keygen", "sshd", "rsync", "curl")
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "var", "dev", "proc", "sys")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Process 1 of a host: makes its root from this machine's, moves there, becomes sshd. $1 folder, $2 name, $3 address,
# $4 folder of the network, then folders seen read-only, "--", folders that are written.
_BOOT = r"""
set -eu
here=$1 name=$2 address=$3 net=$4; shift 4
root=$here/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$here/disk/upper,workdir=$here/disk/work" "$root"
for top in $EMPTY; do mount -t tmpfs -o mode=755 tmpfs "$root/$top"; done
mount --bind "$here/disk/home" "$root/root"
mount --bind "$here/disk/tmp" "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=512m,mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
[ -L "$root/dev/ptmx" ] || mount --bind "$root/dev/pts/ptmx" "$root/dev/ptmx"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
write=
for folder in "$@"; do
  if [ "$folder" = -- ]; then write=yes; continue; fi
  mkdir -p "$root$folder"
  mount --bind "$folder" "$root$folder"
  [ -n "$write" ] || mount -o remount,bind,ro "$root$folder"
done
: >"$root/etc/resolv.conf"
rm -f "$root/etc/hosts" "$root/etc/hostname"
cp "$net/hosts" "$root/etc/hosts"
echo "$name" >"$root/etc/hostname"
hostname "$name"
touch "$root/root/.bashrc" "$root/root/.profile"
mkdir -p "$root/run/sshd" "$root/run/key"
cp "$here/host_key" "$net/key.pub" "$root/run/key/"
chmod 600 "$root/run/key/host_key"
cd "$root"
mkdir -p .before
pivot_root . .before
cd /
umount -l /.before
exec env -i PATH="$HOST_PATH" "$SSHD" -D -e -f /dev/null -o ListenAddress="$address:22" -o HostKey=/run/key/host_key \
  -o AuthorizedKeysFile=/run/key/key.pub -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no \
  -o UsePAM=no -o UseDNS=no -o PidFile=none -o MaxStartups=100 -o StrictModes=no
"""


@dataclass
class Host:
    """One of them."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    """`unshare`, whose only child is process 1 of the host."""


class Hosts:
    """Some hosts, removed at the end of the block."""

    def __init__(self, number: int, *, shared: list[Path], written: list[Path], on: bool = True) -> None:
        self._tag = f"pg{secrets.token_hex(2)}"
        self._shared = [str(folder.resolve()) for folder in shared]
        self._written = [str(folder.resolve()) for folder in written]
        self._folder = Path(tempfile.mkdtemp(prefix="posegrid-hosts-"))
        self._on = on
        network = _free_network()
        self.network = f"{network}.0/24"
        self.gateway = f"{network}.1"
        self.key = self._folder / "key"
        self.all = [Host(f"{self._tag}h{i}", f"{network}.{4 + i}", self._folder / f"h{i}") for i in range(number)]

    def __enter__(self) -> "Hosts":
        try:
            self._make_network()
            for index in range(len(self.all) if self._on else 0):
                self.start(index, fresh=True)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def start(self, index: int, *, fresh: bool = False) -> None:
        """Boot a host that is off, with the disk it had, or an empty one as a replacement would have."""
        host = self.all[index]
        disk = host.folder / "disk"
        if fresh:
            if disk.is_mount():
                _do(f"umount -l {disk}")
            disk.mkdir(parents=True, exist_ok=True)
            _do(f"mount -t tmpfs -o size=2g,mode=755 tmpfs {disk}")
            for name in ("upper", "work", "home", "tmp"):
                (disk / name).mkdir()
            (disk / "home").chmod(0o700)
        (host.folder / "root").mkdir(exist_ok=True)
        shutil.rmtree(disk / "tmp")
        (disk / "tmp").mkdir()
        (disk / "tmp").chmod(0o1777)
        self.plug(index)
        tops = sorted(entry.name for entry in Path("/").iterdir() if entry.is_dir() and not entry.is_symlink())
        empty = [top for top in tops if top not in (*_SYSTEM, "root", "tmp", "run")]
        command = shlex.split(f"nsenter --net=/run/netns/{host.name} unshare --mount --uts --ipc --pid --fork")
        command += ["--kill-child", "sh", "-c", _BOOT, "boot", str(host.folder), host.name, host.address]
        with (host.folder / "log").open("ab") as log:
            host.process = subprocess.Popen(
                [*command, str(self._folder), *self._shared, "--", *self._written],
                env={"PATH": _PATH, "EMPTY": " ".join(empty), "SSHD": _program("sshd"), "HOST_PATH": _PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while not _answers(host.address):
            if host.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"host {index} does not start: {(host.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def run(self, index: int, command: str, *, timeout: float = 60, check: bool = True) -> str:
        """Output of a command on a host, as a login shell runs it."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        ssh = ["ssh", "-i", str(self.key), *(part for option in options for part in ("-o", option))]
        shell = f"bash -lc {shlex.quote('source ~/.bashrc; ' + command)}"
        done = subprocess.run(
            [*ssh, f"root@{self.all[index].address}", shell],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"host {index}: {command}: {done.stdout}{done.stderr}")
        return done.stdout

    def kill(self, index: int) -> None:
        """End every process of a host at once: its peers see closed connections."""
        host = self.all[index]
        if host.process is not None:
            os.killpg(host.process.pid, signal.SIGKILL)  # --kill-child takes process 1 along, and it all others
            host.process.wait()
            host.process = None
        deadline = time.monotonic() + 10
        while pids := _do(f"ip netns pids {host.name}").split():
            if time.monotonic() > deadline:
                raise RuntimeError(f"host {index}: processes {pids} do not end")
            time.sleep(0.05)

    def unplug(self, index: int) -> None:
        """Take a host off the network; followed by `kill` it is a power cut, of which its peers learn nothing."""
        _do(f"ip -n {self._tag}sw link set p{index} down")

    def plug(self, index: int) -> None:
        """Put a host back on the network."""
        _do(f"ip -n {self._tag}sw link set p{index} up")

    def _make_network(self) -> None:
        switch, tag = f"{self._tag}sw", self._tag
        _do(f"ssh-keygen -q -t ed25519 -N '' -C hosts -f {self.key}")
        names = "".join(f"{host.address} {host.name}\n" for host in self.all)
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost\n{self.gateway} gateway\n{names}")
        _do(f"ip netns add {switch}")
        _do(f"ip -n {switch} link add br0 type bridge")
        _do(f"ip -n {switch} link set br0 up")
        _do(f"ip link add {tag} type veth peer name up0 netns {switch}")
        _do(f"ip -n {switch} link set up0 master br0 up")
        _do(f"ip addr add {self.gateway}/24 dev {tag}")
        _do(f"ip link set {tag} up")
        for index, host in enumerate(self.all):
            host.folder.mkdir()
            _do(f"ssh-keygen -q -t ed25519 -N '' -C {host.name} -f {host.folder}/host_key")
            _do(f"ip netns add {host.name}")
            _do(f"ip -n {switch} link add p{index} type veth peer name eth0 netns {host.name}")
            _do(f"ip -n {switch} link set p{index} master br0 up")
            _do(f"ip -n {host.name} link set lo up")
            _do(f"ip -n {host.name} addr add {host.address}/24 dev eth0")
            _do(f"ip -n {host.name} link set eth0 up")
            # leads nowhere, but programs find their own address by asking for the way to a far one
            _do(f"ip -n {host.name} route add default via {self.gateway}")

    def _remove(self) -> None:
        for index, host in enumerate(self.all):
            with contextlib.suppress(RuntimeError):
                self.kill(index)
            with contextlib.suppress(RuntimeError):
                _do(f"ip netns del {host.name}")
            if (host.folder / "disk").is_mount():
                _do(f"umount -l {host.folder}/disk")
        for command in (f"ip link del {self._tag}", f"ip netns del {self._tag}sw"):
            with contextlib.suppress(RuntimeError):
                _do(command)
        shutil.rmtree(self._folder)


def missing() -> str:
    """Why test hosts cannot be made here; empty if they can."""
    if os.geteuid():
        return "test hosts need root"
    absent = [program for program in PROGRAMS if not _program(program)]
    return f"test hosts need the programs {', '.join(absent)}" if absent else ""


def _program(name: str) -> str:
    return shutil.which(name, path=_PATH) or ""


def _do(command: str) -> str:
    words = shlex.split(command)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _free_network() -> str:
    """First three numbers of a private network that no route of this machine leads to."""
    routes = {str(route.get("dst")) for route in json.loads(_do("ip -j -4 route") or "[]")}
    return next(f"10.214.{i}" for i in range(256) if not any(route.startswith(f"10.214.{i}.") for route in routes))
