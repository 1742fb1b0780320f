"""GGUF, the file format of llama.cpp, version 3, read and written by hand.

    "GGUF", version, number of tensors, number of key-values       4 bytes, then u32, u64, u64
    for each key-value: its key, the kind of its value, the value   a text is its length and bytes
    for each tensor: name, number of axes, sizes, kind, offset      the fastest axis comes first
    the tensors' numbers, each from a multiple of 32 bytes on

All numbers are little-endian. Offsets count from where the tensors' numbers begin. Nothing in such
a file is run; lengths are held against the file's own before anything is read.
"""

import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

ALIGN, VERSION = 32, 3
NUMBERS = "BbHhIif?__Qqd"  # kinds of values, as struct names them; 8 is a text, 9 a list
TEXT, LIST = 8, 9
KINDS = {  # of tensors: (name, weights to a block, bytes to a block)
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}
PLAIN = {np.dtype("<f4"): 0, np.dtype("<f2"): 1}


class Stored(NamedTuple):
    """A tensor as it lies in a file: kind is "F32", "F16", "Q4_1" or "Q8_0"; data are its bytes,
    (all axes but the last, bytes of a row)."""

    shape: tuple
    kind: str
    data: np.ndarray


def to_bytes(values, tensors):
    """The bytes of a file: values, {key: text, int or float}; tensors, {name: array}.

    Whole numbers become u32, others f32; arrays must be of float32 or float16. Raises TypeError
    for other kinds, ValueError for a whole number that u32 can't hold.
    """
    head = [b"GGUF", struct.pack("<IQQ", VERSION, len(tensors), len(values))]
    for key, value in values.items():
        head += [_text(key), _value(key, value)]
    data, offset = [], 0
    for name, array in tensors.items():
        array = np.asarray(array)
        little = array.dtype.newbyteorder("<")
        if little not in PLAIN:
            raise TypeError(f"{name!r}: expected float32 or float16, got {array.dtype}: convert it "
                            "first")
        head += [_text(name), struct.pack(f"<I{array.ndim}QIQ", array.ndim, *array.shape[::-1],
                                          PLAIN[little], offset)]
        data.append(_padded(array.astype(little, copy=False).tobytes()))
        offset += len(data[-1])
    return _padded(b"".join(head)) + b"".join(data)


def read(path):
    """(values, tensors) of a file: {key: text, number or list}, {name: Stored}.

    The tensors' bytes stay on the disk until they are used. Raises ValueError for a file that is
    no GGUF of version 3, is cut short, or holds a kind of tensor that is not read here.
    """
    file = _Bytes(path)
    if file.take(4) != b"GGUF" or file.number("I") != VERSION:
        raise ValueError(f"{path} is no GGUF file of version {VERSION}")
    count, pairs = file.number("Q"), file.number("Q")
    values = dict((file.text(), file.value()) for _ in range(pairs))
    places = {}
    for _ in range(count):
        name, axes = file.text(), file.number("I")
        places[name] = [file.number("Q") for _ in range(axes)][::-1], *file.numbers("IQ")
    align = values.get("general.alignment", ALIGN)
    start, tensors = file.at + -file.at % align, {}
    for name, (shape, kind, offset) in places.items():
        if kind not in KINDS:
            raise ValueError(f"{path}: {name!r} is of kind {kind}; read are "
                             f"{', '.join(k for k, *_ in KINDS.values())}")
        title, weights, size = KINDS[kind]
        *rows, row = shape
        if row % weights:
            raise ValueError(f"{path}: {name!r} has rows of {row}, no multiple of {weights}")
        row = row // weights * size
        file.at = start + offset
        data = np.frombuffer(file.take(math.prod(rows) * row), np.uint8).reshape(*rows, row)
        tensors[name] = Stored(tuple(shape), title, data)
    return values, tensors


class _Bytes:
    """A file, read from the front; what would go past its end is refused."""

    def __init__(self, path):
        self.path, self.at = path, 0
        whole = np.memmap(path, np.uint8, "r") if Path(path).stat().st_size else b""
        self.data = memoryview(whole)

    def take(self, n):
        if n > len(self.data) - self.at:
            raise ValueError(f"{self.path} is cut short: it ends inside what it announces")
        self.at += n
        return self.data[self.at - n:self.at]

    def numbers(self, kinds):
        return struct.unpack(f"<{kinds}", self.take(struct.calcsize(f"<{kinds}")))

    def number(self, kind):
        return self.numbers(kind)[0]

    def text(self):
        try:
            return str(self.take(self.number("Q")), "utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{self.path} is damaged: it holds what is no text") from None

    def value(self, kind=None):
        kind = self.number("I") if kind is None else kind
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            inner, n = self.number("I"), self.number("Q")
            if inner in (TEXT, LIST) or inner >= len(NUMBERS):
                return [self.value(inner) for _ in range(n)]
            return list(self.numbers(f"{n}{NUMBERS[inner]}"))
        if kind >= len(NUMBERS):
            raise ValueError(f"{self.path} is damaged: it holds a value of kind {kind}")
        return self.number(NUMBERS[kind])


def _text(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key, value):
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key!r}: expected a text, an int or a float, got {value!r}")
    if isinstance(value, float):
        return struct.pack("<If", NUMBERS.index("f"), value)
    if not 0 <= value < 2**32:
        raise ValueError(f"{key!r}: expected a whole number from 0 to 2^32 - 1, got {value}")
    return struct.pack("<II", NUMBERS.index("I"), value)


def _padded(data):
    return data + bytes(-len(data) % ALIGN)
