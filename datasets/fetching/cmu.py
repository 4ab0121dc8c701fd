"""Motion files of the CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu) by subject.

A subject NN has a skeleton `subjects/NN/NN.asf` and takes `subjects/NN/NN_TT.amc`. Which takes there are is read from
links to such files on `search.php?subjectnumber=N`, or else from a plain listing of the folder `subjects/NN/`. What
these pages look like is recalled, not checked against the server of today: naming the takes avoids the question, and
whatever a page says, only numbers are taken from it.

`cmu_checksums.json` holds checksums of some files, over their bytes with CR LF turned into LF, because copies in both
forms are in use. All other files are checked for their length and their first lines, and `SHA256SUMS` in the target
folder (the format of `sha256sum --check`) says what they were when they were fetched.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

from filelock import FileLock, Timeout

from posegrid.datasets.fetching.transfer import Downloader, NotThereError, sha256, write_whole

ADDRESS = "http://mocap.cs.cmu.edu"
SUMS = "SHA256SUMS"
TERMS = (
    "The data is free to use, not to be resold, even converted; publications name mocap.cs.cmu.edu, created with "
    "funding from NSF EIA-0196217."
)

_KNOWN = Path(__file__).parent / "cmu_checksums.json"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a command did."""

    fetched: int
    """Files that were downloaded."""
    there: int
    """Files that were there and unchanged."""
    received: int
    """Bytes received, lists of takes included."""


def numbers_of(text: str, option: str) -> list[int]:
    """ "01,02" -> [1, 2], without repetitions. Raises ValueError for anything but numbers from 1 to 999."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,3}", part) and int(part) for part in parts):
        raise ValueError(f'{option} {text}: expected numbers from 1 to 999 with commas, such as "01,02". Correct it.')
    return list(dict.fromkeys(int(part) for part in parts))


def fetch(
    downloader: Downloader,
    out: Path,
    subjects: Sequence[int],
    takes: Sequence[int] | None = None,
    *,
    mirror: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Fetched:
    """Download skeleton and takes of the subjects to `out/NN/`; what is there already is verified and kept.

    takes: which takes of each subject; None asks the server. mirror: address in place of `ADDRESS`.
    Raises ValueError if the server cannot be reached or does not have a file, if a file is not what it should be, or
    was changed since it was fetched, or another command is fetching to `out`.
    """
    base = (mirror or ADDRESS).rstrip("/")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".fetch.lock", timeout=0):
            return _fetch(downloader, out, subjects, takes, base, say)
    except Timeout:
        raise ValueError(f"another command is fetching to {out}. Wait until it has ended.") from None
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written ({error}). Make room or choose another --out, then repeat the command: what was "
            "received is kept."
        ) from None


def _fetch(
    downloader: Downloader,
    out: Path,
    subjects: Sequence[int],
    takes: Sequence[int] | None,
    base: str,
    say: Callable[[str], None],
) -> Fetched:
    known = json.loads(_KNOWN.read_text(encoding="utf-8"))
    recorded = _read_sums(out / SUMS)
    fetched = there = 0
    for subject in subjects:
        wanted = list(takes) if takes else _takes_of(downloader, base, subject)
        say(f"subject {subject:02d}: {len(wanted)} takes")
        names = [
            f"{subject:02d}/{subject:02d}.asf",
            *(f"{subject:02d}/{subject:02d}_{take:02d}.amc" for take in wanted),
        ]
        for number, name in enumerate(names, start=1):
            target, digest = out / name, known.get(name)
            if _is_there(target, name, recorded, digest):
                there += 1
                say(f"  {name}: there ({number} of {len(names)})")
            else:
                downloader.file(
                    f"{base}/subjects/{name}",
                    target,
                    check=partial(_check_content, name=name, digest=digest),
                    record=partial(_record, out / SUMS, recorded, name),
                )
                fetched += 1
                say(f"  {name}: {target.stat().st_size:,} bytes ({number} of {len(names)})")
            if name not in recorded:
                _record(out / SUMS, recorded, name, sha256(target))
    return Fetched(fetched=fetched, there=there, received=downloader.total)


def _takes_of(downloader: Downloader, base: str, subject: int) -> list[int]:
    """Numbers of a subject's takes, from links on its page or in its folder."""
    tried = []
    for url in (f"{base}/search.php?subjectnumber={subject}", f"{base}/subjects/{subject:02d}/"):
        tried.append(url)
        try:
            links = _Links(downloader.text(url))
        except NotThereError:
            continue
        pattern = re.compile(r"(?:^|/)0*(\d{1,3})_(\d{1,3})\.amc(?:$|[?#])", re.IGNORECASE | re.ASCII)
        found = [match for link in links.found if (match := pattern.search(link.strip()))]
        takes = sorted({int(match[2]) for match in found if int(match[1]) == subject} - {0})
        if takes:
            return takes
    raise ValueError(
        f"no link to an AMC file of subject {subject:02d} on {' or '.join(tried)}. Subjects have numbers up to 144, "
        "not all of them are there. If it exists, name its takes: --takes 1,2."
    )


class _Links(HTMLParser):
    """All addresses that a page links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _is_there(target: Path, name: str, recorded: dict[str, str], digest: str | None) -> bool:
    """Whether a file needs no download. Raises ValueError if it is there and not what it should be."""
    if not target.exists():
        return False
    if name in recorded:
        if sha256(target) == recorded[name]:
            return True
        raise ValueError(
            f"{target} is not what was fetched: its sha256 differs from the one in {SUMS}. Remove the file to fetch it "
            "again, or its line to keep it."
        )
    if digest and _digest(target) == digest:
        return True
    raise ValueError(
        f"{target} was not fetched by this command and there is no checksum that it fits. Remove it, or choose another "
        "--out."
    )


def _check_content(file: Path, name: str, digest: str | None) -> None:
    """Raises ValueError if a file is no ASF or AMC file, or not the one that is known."""
    with file.open("rb") as stream:
        head = stream.read(1 << 16)
    # both formats begin with comments and sections; a page of HTML begins with "<"
    marks = (b":root", b":bonedata", b":units", b":version") if name.endswith(".asf") else (b":fully-specified",)
    if head.lstrip()[:1] not in (b"#", b":") or not any(mark in head.lower() for mark in marks):
        shown = head[:40].decode("ascii", errors="replace")
        raise ValueError(
            f"{name}: what the server sent is no {name[-3:].upper()} file, it begins with {shown!r}. Nothing was kept. "
            "Check the address in a browser, or give another --mirror."
        )
    if digest and _digest(file) != digest:
        raise ValueError(
            f"{name}: what the server sent differs from the file of the database (sha256 {_digest(file)[:12]} instead "
            f"of {digest[:12]}, line endings aside). Nothing was kept. Repeat the command, or give another --mirror."
        )


def _digest(file: Path) -> str:
    """sha256 over the bytes with CR LF turned into LF."""
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _read_sums(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    recorded = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        found = re.fullmatch(r"([0-9a-f]{64}) [ *](\S+)", line)
        if not found:
            raise ValueError(
                f'{file}, line {number}: {line[:80]!r} is no checksum, expected "sha256  name". Remove the line; its '
                "file is checked again then."
            )
        recorded[found[2]] = found[1]
    return recorded


def _record(file: Path, recorded: dict[str, str], name: str, digest: str) -> None:
    recorded[name] = digest
    write_whole(file, "".join(f"{digest}  {name}\n" for name, digest in sorted(recorded.items())))
