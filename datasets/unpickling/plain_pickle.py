"""Reads the pickle format without Python's unpickler: what a file can make of the machine's memory is bounded.

Python's own unpickler can be told which names to refuse, but a few bytes still make it reserve gigabytes (indices of
the memo, declared lengths), change its classes' attributes, or overflow the stack (hashes of deeply nested tuples).
Here every instruction is carried out on a plain list, dictionaries and the objects that the caller admits. A file of
N bytes leads to a number of objects in proportion to N; nothing is imported, and only what is admitted is called.

Formats: protocols 0 to 5 as Python 2 and 3 write them, without out-of-band buffers, persistent ids, extension
registries; sets are passed over. Texts of Python 2 are read as Latin-1, long ones when they are asked for (`OldText`).
"""

import codecs
import io
import struct
from collections.abc import Callable, Mapping
from typing import IO, Any

_LONG_TEXT = 256
"""Texts of Python 2 of at least so many bytes stay bytes: mostly they are the contents of arrays."""
_LARGEST_KEY = 2**60
"""Whole numbers beyond it can share a hash, which makes dictionaries slow."""


class RefusedError(Exception):
    """What was found in a file and is not read."""


class OldText:
    """A long text of Python 2, of which the file does not say whether it means bytes or letters."""

    def __init__(self, content: bytes) -> None:
        self.content = content


class SkippedSet:
    """A set. Its members are not kept: hashing them is what files could abuse, and no data is in sets."""

    def __init__(self, *members: Any) -> None:
        pass


def load(stream: IO[bytes], admitted: Mapping[tuple[str, str], Any], size: int) -> Any:
    """The value of the pickle that begins here; reads up to its end, perhaps a little more.

    admitted: what stands for a name (module, name). Functions and classes of it may be called with whatever values the
    file gives; instances of its classes with `__setstate__` get whatever state the file gives. size: bytes that the
    stream has at most. Raises RefusedError for a name or an instruction that is not admitted, any other exception for a
    damaged pickle.
    """
    machine = _Machine(stream, admitted, size)
    try:
        return machine.run()
    finally:
        machine.stream.detach()  # or it would close the caller's stream


class _Machine:
    def __init__(self, stream: IO[bytes], admitted: Mapping[tuple[str, str], Any], size: int) -> None:
        self.stream, self.admitted, self.left = io.BufferedReader(stream, 2**16), admitted, size  # type: ignore[type-var]
        self.callable = {id(value) for value in admitted.values() if callable(value)}
        self.stateful = {value for value in admitted.values() if hasattr(value, "__setstate__")}
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise RefusedError(f"the instruction {code!r}")
            instruction(self)

    # -- reading ------------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        # a declared length is compared with what the file can have before anything is reserved for it
        if not 0 <= count <= self.left:
            raise EOFError(f"{count} bytes announced, {self.left} left")
        content = self.stream.read(count)
        if len(content) != count:
            raise EOFError(f"{count} bytes announced, {len(content)} left")
        self.left -= count
        return content

    def line(self) -> bytes:
        content = self.stream.readline()
        if not content.endswith(b"\n"):
            raise EOFError("a line without end")
        self.left -= len(content)
        return content[:-1]

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def counted(self, code: str) -> bytes:
        return self.take(self.number(code))

    # -- values -------------------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def integer(self) -> None:
        text = self.line()
        self.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))

    def old_text(self, content: bytes) -> None:
        self.push(OldText(content) if len(content) >= _LONG_TEXT else content.decode("latin1"))

    def quoted(self) -> None:
        text = self.line().strip()
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
            raise ValueError("a text without quotes")
        self.old_text(codecs.escape_decode(text[1:-1])[0])

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, count: int) -> tuple:
        if len(self.stack) < count:
            raise IndexError("stack is empty")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop(self) -> None:
        # pickles written by Python 2 pop marks this way, too
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    # -- containers ---------------------------------------------------------------------------------------------------

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError("items for something that is no list")
        target.extend(items)

    def fill(self, target: Any, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise TypeError("keys and values for something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def new_dict(self) -> None:
        target: dict[Any, Any] = {}
        self.fill(target, self.since_mark())
        self.push(target)

    def drop_members(self) -> None:
        self.since_mark()
        if type(self.stack[-1]) is not SkippedSet:
            raise TypeError("members for something that is no set")

    # -- names and objects --------------------------------------------------------------------------------------------

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)) or (module, name) not in self.admitted:
            raise RefusedError(f"the name {str(module)[:100]}.{str(name)[:100]}")
        self.push(self.admitted[module, name])

    def call(self) -> None:
        function, arguments = self.last(2)
        if id(function) not in self.callable or type(arguments) is not tuple:
            raise RefusedError("a call of something that is no function")
        self.push(function(*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) not in self.stateful:
            raise RefusedError(f"a state for a value of type {type(self.stack[-1]).__name__}")
        self.stack[-1].__setstate__(state)


def _key(key: Any) -> Any:
    """Keys are texts, whole numbers, or tuples of these: hashing others may take for ever or overflow the stack."""
    if isinstance(key, OldText):
        return key.content.decode("latin1")
    for item in key if type(key) is tuple else (key,):
        whole = isinstance(item, int) and abs(item) < _LARGEST_KEY
        if not whole and item is not None and not isinstance(item, str | bytes):
            raise RefusedError(f"a key of type {type(item).__name__} in a dictionary")
    return key


def _text(machine: _Machine) -> tuple[str, str]:
    return machine.line().decode("utf-8"), machine.line().decode("utf-8")


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame: only tells how much to buffer
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.since_mark,
    b"2": lambda m: m.push(m.stack[-1]),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _Machine.integer,
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"L": lambda m: m.push(int(m.line().rstrip(b"L"))),
    b"\x8a": lambda m: m.push(int.from_bytes(m.counted("<B"), "little", signed=True)),
    b"\x8b": lambda m: m.push(int.from_bytes(m.counted("<i"), "little", signed=True)),
    b"F": lambda m: m.push(float(m.line())),
    b"G": lambda m: m.push(m.number(">d")),
    b"S": _Machine.quoted,
    b"T": lambda m: m.old_text(m.counted("<i")),
    b"U": lambda m: m.old_text(m.counted("<B")),
    b"B": lambda m: m.push(m.counted("<I")),
    b"C": lambda m: m.push(m.counted("<B")),
    b"\x8e": lambda m: m.push(m.counted("<Q")),
    b"\x96": lambda m: m.push(m.counted("<Q")),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.push(m.counted("<I").decode("utf-8", "surrogatepass")),
    b"\x8c": lambda m: m.push(m.counted("<B").decode("utf-8", "surrogatepass")),
    b"\x8d": lambda m: m.push(m.counted("<Q").decode("utf-8", "surrogatepass")),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.since_mark()),
    b"a": lambda m: m.extend([m.stack.pop()]),
    b"e": lambda m: m.extend(m.since_mark()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.push(m.last(1)),
    b"\x86": lambda m: m.push(m.last(2)),
    b"\x87": lambda m: m.push(m.last(3)),
    b"}": lambda m: m.push({}),
    b"d": _Machine.new_dict,
    b"s": lambda m: m.fill(m.stack[-3], list(m.last(2))),
    b"u": lambda m: (lambda items: m.fill(m.stack[-1], items))(m.since_mark()),
    b"\x8f": lambda m: m.push(SkippedSet()),
    b"\x90": _Machine.drop_members,
    b"\x91": lambda m: m.push(SkippedSet(m.since_mark())),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"p": lambda m: m.memo.__setitem__(int(m.line()), m.stack[-1]),
    b"q": lambda m: m.memo.__setitem__(m.number("<B"), m.stack[-1]),
    b"r": lambda m: m.memo.__setitem__(m.number("<I"), m.stack[-1]),
    b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    b"c": lambda m: m.name(*_text(m)),
    b"\x93": lambda m: m.name(*m.last(2)),
    b"R": _Machine.call,
    b"\x81": _Machine.call,  # a new object: a class and its arguments
    b"b": _Machine.build,
}
