"""Damaged and hostile inputs, each made of one integer, and what may come of them.

`H2MV_FUZZ_SEED` is where the integers begin, another number gives other inputs:

    H2MV_FUZZ_SEED=7000000 pytest tests/test_fuzz.py
"""

import contextlib
import copy
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from h2mv_tf.errors import UserError, shown

SEED = int(os.environ.get("H2MV_FUZZ_SEED", "20261125"))
TIMES = int(os.environ.get("H2MV_FUZZ_TIMES", "1"))  # as many inputs
DEMO = Path(__file__).parents[1] / "saved_models" / "demo" / "1"
LONGEST = 500  # characters of a message
PATIENCE = 30  # seconds for one input

# Values that parsers stumble over, as YAML writes them.
YAML = """
2001-99-99 ; 2001-01-01T99:00:00 ; 0x ; 0b2 ; 1:99:99 ; 0o9 ; 1_ ; = ; ~ ; !!bool maybe
!!int '' ; !!float x ; !!timestamp foo ; !!binary é ; !!null x ; !!set {a} ; !!omap [a]
!!pairs [{a: b}] ; !!str {a: b} ; !!python/name:os ; !x y ; !<x> y ; !!python/module:os
!!python/object/apply:os.system ['true'] ; .inf ; -.inf ; .nan ; 1e400 ; -1e400 ; 1e-400
&a [*a] ; &a {*a : b} ; *a ; {<<: 3} ; {<<: []} ; {1: 2} ; {[1]: 2} ; {null: 1}
{true: 1} ; [] ; {} ; '' ; null ; true ; -0 ; 0 ; -1 ; 1.5 ; 1e9 ; 99999999999
../../x ; /etc/passwd ; a/b ; C:\\x ; . ; .. ; "\\ud800" ; "\\0" ; "\\x1b[31m"
"\\u2028"
"\\U0010FFFF" ; @ ; ` ; ? a ; : b ; %YAML 9.9 ; 12 mm ; 15 cm ; 1 9**9**9 ; 1 kg m-2
1e999 mm ; nan mm ; 3 parsec ; 1 ⁹ ; x mm ; swe,swe ; [swe, tws] ; swe ; full
variational ; normal ; [[[swe]]] ; [null] ; {distribution: Beta} ; {median: 3}
LogNormal
{distribution: LogNormal, median: 1, deviation: 1} ; {distribution: [1]}
{distribution: {a: 1}} ; [&a {x: 1}, &b {<<: [*a, *a]}, &c {<<: [*b, *b]}]
{a: &a [x, x, x, x], b: &b [*a, *a, *a, *a], c: &c [*b, *b, *b, *b], d: [*c, *c, *c]}
"""
YAML = [value for part in YAML.strip().split("\n") for value in part.split(" ; ")]
YAML += ["0x" + "f" * 5000, "9" * 5000, "[" * 400, "{a: " * 400, "- " * 300, "x" * 3000]
YAML += ["\x00", "\t", "\ufeff", "\x85", "'\n\n'", "--- a\n--- b"]
# And as JSON has them.
JSON = """
null ; true ; false ; 0 ; 1 ; -1 ; 2 ; 3 ; 1.5 ; -1e308 ; 1e308 ; 1e999 ; 1000000000000
1000000000 ; 9223372036854775808 ; "" ; "x" ; "\\u0000" ; "\\u001b[31m" ; "\\ud800"
"NaN"
"Infinity" ; "é" ; ".." ; "a/b" ; [] ; {} ; [0] ; [1] ; [-1] ; [1000000000000] ; ["x"]
[1000000, 1000000] ; [[1]] ; [null] ; {"a": 1} ; {"": {}} ; NaN ; -Infinity
"<f4" ; ">f8" ; "<i8" ; "|b1" ; "|S5" ; "<U9" ; "<U999999999" ; "|O" ; "<M8[ns]"
"<c8" ; "|V8" ; "float32" ; "float64" ; "int8" ; "int64" ; "uint8" ; "bool" ; "string"
"complex64" ; "r64" ; "bytes" ; "blosc" ; "gzip" ; "zstd" ; "crc32c" ; "transpose"
"sharding_indexed" ; "vlen-utf8" ; "pickle" ; "zlib" ; "lzma" ; "bz2" ; "delta"
"json2"
"msgpack2" ; "regular" ; "default" ; "v2" ; {"id": "pickle"} ; [{"id": "pickle"}]
{"id": "zlib", "level": 1} ; [{"id": "lzma"}] ; [{"id": "delta", "dtype": "<f4"}]
[{"id": "fixedscaleoffset"}] ; {"id": "blosc"} ; [{"name": "bytes"}, {"name": "gzip"}]
[{"name": "transpose"}] ; [{"name": "numcodecs.pickle"}] ; "days since 2001-01-01"
"days since 0000-00-00" ; "hours since 9999-12-31" ; "days since x" ; "360_day"
"noleap"
"months since 2001-01-01" ; "seconds since 1e9" ; "julian" ; "standard" ; "time" ; "lat"
"lon" ; "cell" ; "variable" ; "data" ; "lat lon" ; "time lat" ; ["lat", "lat"] ; "mm"
"mm d-1" ; "W m-2" ; "kg m-2 s-1" ; "9**9**9**9" ; "m⁹⁹⁹⁹⁹" ; "percent" ; "days"
"AAAAAAAA+H8=" ; "AAAA" ; "0x" ; "0xff" ; "nan" ; "1e400" ; {"data": {}}
"""
JSON = [v for part in JSON.strip().split("\n") for v in part.split(" ; ")]
JSON = [json.loads(value) for value in JSON]
JSON += [10**400, "x" * 3000, [0] * 50, ["a"] * 40]
# And bytes.
TEXT = [
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"{",
    b"}",
    b"[",
    b'"',
    b",",
    b":",
    b"\n",
    b"NaN",
]
TEXT += [
    b"null",
    b"1e999",
    b"-",
    b"9" * 5000,
    b"[" * 3000,
    b"\x1b[2J",
    "\u202e".encode(),
]


class TooLong(BaseException):
    """An input that takes too long; nothing takes it for an error of a file."""


def damaged(number: random.Random, content: bytes) -> bytes:
    """Bytes with one to three things done to them."""
    for _ in range(number.randint(1, 3)):
        size = len(content)
        place, end = sorted(number.randint(0, size) for _ in range(2))
        end = min(end, place + 40)
        part = content[place:end]
        content = number.choice(
            [
                content[:place],
                content[:place] + content[end:],
                content[:place] + part + part + content[end:],
                content[:place] + number.choice(TEXT) + content[place:],
                content[:place] + number.choice(TEXT) + content[end:],
                content[:place] + number.randbytes(len(part)) + content[end:],
                content[:place] + number.randbytes(1) + content[place + 1 :],
            ]
        )
    return content


def rearranged(number: random.Random, content: object) -> object:
    """A tree of mappings and lists with one to three parts changed."""
    content = copy.deepcopy(content)
    for _ in range(number.randint(1, 3)):
        places = list(_places(content))
        if not places:
            return number.choice(JSON)
        parent, key = number.choice(places)
        value = copy.deepcopy(number.choice(JSON))
        kind = number.randrange(5)
        if kind < 2:
            parent[key] = value
        elif kind == 2:
            parent[key] = _near(number, parent[key])
        elif kind == 3:
            del parent[key]
        elif isinstance(parent, dict):
            parent[number.choice([shown(value)[:40], key + "x", ""])] = parent.pop(key)
        else:
            parent.append(copy.deepcopy(parent[number.randrange(len(parent))]))
    return content


def _near(number: random.Random, value: object) -> object:
    """A value that differs a little, as of an honest mistake."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return number.choice(
            [value + 1, value - 1, -value, value * 10, value // 2, str(value)]
        )
    if isinstance(value, str):
        return number.choice(
            [value[:-1], value + value, value.upper(), [value], value + " "]
        )
    return number.choice([[value], {"x": value}, str(value)])


def _places(content: object) -> Iterator[tuple[dict | list, object]]:
    if isinstance(content, dict | list):
        keys = list(content) if isinstance(content, dict) else range(len(content))
        for key in keys:
            yield content, key
            yield from _places(content[key])


def damaged_json(number: random.Random, content: bytes) -> bytes:
    """JSON that is another tree, or none any more."""
    if number.random() < 0.25:
        return damaged(number, content)
    return json.dumps(rearranged(number, json.loads(content))).encode()


def inputs(count: int, begin: int) -> Iterator[tuple[int, random.Random]]:
    """The seeds of a test, and what each one draws from.

    Args:
        count: How many.
        begin: Tells the tests apart.
    """
    first = SEED + begin
    print(f"seeds {first} to {first + count * TIMES - 1}")  # noqa: T201
    for seed in range(first, first + count * TIMES):
        yield seed, random.Random(seed)


def refused(seed: int, call: Callable[[], object]) -> str | None:
    """The line with which an input is refused; None where it is taken.

    Raises:
        AssertionError: Something else comes of it, with the seed that makes it again.
    """
    try:
        with _patience():
            call()
    except UserError as error:
        return line(seed, str(error))
    except BaseException as error:
        raise AssertionError(
            f"seed {seed}: {type(error).__name__}: {error!s:.300}"
        ) from error
    return None


def one_line(call: Callable[[], object], *wanted: str) -> str:
    """The line with which a call is refused."""
    found = refused(0, call)
    assert found is not None, "it was taken"
    for word in wanted:
        assert word in found
    return found


def line(seed: int, text: str) -> str:
    """A message, which has to be one line that every terminal shows."""
    assert text.isprintable(), f"seed {seed}: not printable: {text!r}"
    assert text.encode(), f"seed {seed}: empty"
    assert len(text) <= LONGEST, f"seed {seed}: {len(text)} characters: {text}"
    return text


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Ends what takes too long."""

    def end(*_):
        raise TooLong(f"more than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def counted(what: str) -> Iterator[dict[str, int]]:
    """Counts what is taken and refused, and tells it with the seconds."""
    counts = {"taken": 0, "refused": 0}
    begin = time.perf_counter()
    yield counts
    seconds = time.perf_counter() - begin
    told = f"{counts['taken']} taken, {counts['refused']} refused, {seconds:.0f} s"
    print(f"{what}: {told}")  # noqa: T201
