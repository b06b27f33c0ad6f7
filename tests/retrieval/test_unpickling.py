"""Plain data is read from pickles of every protocol; nothing else is, and nothing is ever executed."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import pickletools
import struct
import subprocess
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave.errors import IndexDataError
from ragweave.retrieval.unpickling import load_plain_data

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
)
PLAIN = st.recursive(
    SCALARS,
    lambda own: (
        st.lists(own)
        | st.lists(own, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.none(), own)
    ),
    max_leaves=20,
)
KEYS = st.text() | st.integers() | st.binary()


def loaded(folder: Path, content: bytes) -> Any:
    path = folder / "data.pkl"
    path.write_bytes(content)
    return load_plain_data(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles")


class TestPlainData:
    @settings(max_examples=80, deadline=None)
    @given(data=PLAIN, protocol=st.sampled_from(PROTOCOLS), optimised=st.booleans())
    def test_is_read(self, folder: Path, data: Any, protocol: int, optimised: bool) -> None:
        content = pickle.dumps(data, protocol)
        found = loaded(folder, pickletools.optimize(content) if optimised else content)
        assert found == data
        assert type(found) is type(data)

    @settings(max_examples=50, deadline=None)
    @given(data=st.sets(KEYS) | st.frozensets(KEYS), protocol=st.sampled_from([4, 5]))
    def test_sets_are_read_from_protocol_4_on(self, folder: Path, data: Any, protocol: int) -> None:
        found = loaded(folder, pickle.dumps([data, data], protocol))
        assert found == [data, data]
        assert type(found[1]) is type(data)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_long_containers_and_strings(self, folder: Path, protocol: int) -> None:
        data = [{str(row): ("ä" * 300, row) for row in range(3000)}, list(range(3000)), "x" * 70_000]
        assert loaded(folder, pickle.dumps(data, protocol)) == data

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_what_occurs_twice_is_one(self, folder: Path, protocol: int) -> None:
        own: list[Any] = ["x"]
        own.append(own)
        found = loaded(folder, pickle.dumps([own, own], protocol))
        assert found[0] is found[1] is found[0][1]


class Calls:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduction = function, arguments

    def __reduce__(self) -> Any:
        return self.reduction


class WithState:
    """Executes its state when it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __getstate__(self) -> str:
        return self.code

    def __setstate__(self, code: str) -> None:
        eval(code)


class WithArguments:
    """Executes its argument when it is made, and so when it is unpickled."""

    def __new__(cls, code: str) -> WithArguments:
        self = super().__new__(cls)
        self.code = code
        eval(code)
        return self

    def __getnewargs__(self) -> Any:
        return (self.code,)


class WithNamedArguments(WithArguments):
    def __getnewargs_ex__(self) -> Any:
        return (), {"code": self.code}


def dumped(kind: type, code: str, protocol: int) -> bytes:
    """A pickle of one of the classes above with this code in it, which has not been executed here."""
    harmless = "0" * len(code)
    return pickle.dumps(kind(harmless), protocol).replace(harmless.encode(), code.encode())


def short(text: str) -> bytes:
    """A string in the language of protocol 4."""
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def payloads(marker: Path) -> dict[str, bytes]:
    """Each makes the marker where it is unpickled the ordinary way."""
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    quoted, system, evaluated = repr(touch).encode(), Calls(os.system, touch), Calls(eval, code)
    return {
        **{f"os.system {protocol}": pickle.dumps(system, protocol) for protocol in PROTOCOLS},
        **{
            f"nested {protocol}": pickle.dumps({"1": ["a", (evaluated,)]}, protocol) for protocol in PROTOCOLS
        },
        **{f"BUILD {protocol}": dumped(WithState, code, protocol) for protocol in PROTOCOLS},
        **{f"NEWOBJ {protocol}": dumped(WithArguments, code, protocol) for protocol in PROTOCOLS[2:]},
        **{f"NEWOBJ_EX {protocol}": dumped(WithNamedArguments, code, protocol) for protocol in PROTOCOLS[2:]},
        "subprocess": pickle.dumps(Calls(subprocess.call, ["touch", str(marker)])),
        "exec": pickle.dumps(Calls(exec, code)),
        "a list's items": pickle.dumps([1, 2, evaluated]),
        "a dictionary's key": b"}" + pickle.dumps(evaluated, 0)[:-1] + b"I1\ns.",
        "numpy": pickle.dumps(np.array([evaluated], dtype=object)),
        "GLOBAL": b"cos\nsystem\n(S" + quoted + b"\ntR.",
        "STACK_GLOBAL": b"\x80\x04" + short("os") + short("system") + b"\x93" + short(touch) + b"\x85R.",
        "INST": b"(S" + quoted + b"\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS" + quoted + b"\no.",
        "a name from the memory": b"\x80\x04"
        + short("os")
        + b"\x94"
        + short("system")
        + b"\x940h\x00h\x01\x93"
        + short(touch)
        + b"\x85R.",
        "a dotted name": b"\x80\x04"
        + short("os")
        + short("path.os.system")
        + b"\x93"
        + short(touch)
        + b"\x85R.",
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S"
        + quoted
        + b"\ntR.",
        "the name of Python 2": b"\x80\x02c__builtin__\neval\n(S" + repr(code).encode() + b"\ntR.",
        "copyreg": b"ccopyreg\n_reconstructor\n(ctests.retrieval.test_unpickling\nWithState\ncbuiltins\nobject\nNtR"
        + b"S"
        + repr(code).encode()
        + b"\nb.",
        "after the value": b"N0" + pickle.dumps(evaluated, 0),
    }


@pytest.mark.parametrize("name", payloads(Path("marker")))
def test_nothing_is_executed(folder: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "m"
    content = payloads(marker)[name]
    with pytest.raises(IndexDataError, match=r"data\.pkl does not hold plain data \(.*lists, tuples"):
        loaded(folder, content)
    assert not marker.exists()
    pickle.loads(content)  # the payload is real
    assert marker.exists()


@pytest.fixture
def extension() -> Iterator[int]:
    """The number of a registered extension that has been used before, so that Python finds it in a cache."""
    number = 0xF0
    copyreg.add_extension("os", "system", number)
    assert pickle.loads(bytes([0x82, number]) + b".") is os.system
    yield number
    copyreg.remove_extension("os", "system", number)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("instruction", [b"\x82\xf0", b"\x83\xf0\0", b"\x84\xf0\0\0\0"])
def test_extensions_are_not_executed(tmp_path: Path, extension: int, instruction: bytes) -> None:
    marker = tmp_path / "m"
    content = b"\x80\x02" + instruction + b"(V" + f"touch {marker}".encode() + b"\ntR."
    with pytest.raises(IndexDataError, match="instruction EXT"):
        loaded(tmp_path, content)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(a=1),
        Fraction(1, 2),
        Path("x"),
        np.float32(1.0),
        np.zeros(2),
        torch.zeros(2),
        1j,
        range(3),
        bytearray(b"x"),
        print,
        int,
        partial(print),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_harmless_objects_are_refused_too(folder: Path, value: Any) -> None:
    with pytest.raises(IndexDataError, match="not hold plain data"):
        loaded(folder, pickle.dumps([value], 5))


@pytest.mark.parametrize(
    "content", [b"Pos.system\n.", b"(Vos.system\nQ.", b"Vos.system\nQ.", b"\x97.", b"\x97\x98."]
)
def test_what_lies_outside_is_refused(folder: Path, content: bytes) -> None:
    with pytest.raises(IndexDataError, match=r"instruction (BIN)?PERSID|instruction NEXT_BUFFER"):
        loaded(folder, content)


@pytest.mark.parametrize(
    "content",
    [
        *(b"]r" + struct.pack("<I", number) + b"." for number in (1, 2**28, 2**30, 2**32 - 1)),  # LONG_BINPUT
        b"]p99999999999\n.",
        b"]p-1\n.",
        b"]q\x00g-1\n.",
        b"j\xff\xff\xff\xff.",
        *(
            code + struct.pack("<Q", 2**exponent) + b"x."
            for code in (b"\x8d", b"\x8e", b"\x96")
            for exponent in (31, 40, 62, 63)
        ),
        *(code + struct.pack("<I", 2**32 - 1) + b"x." for code in (b"X", b"B", b"T")),
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        b"\x8b" + struct.pack("<i", -1) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**63),
        b"I" + b"9" * 100_000 + b"\n.",
        b"L" + b"9" * 100_000 + b"L\n.",
    ],
)
def test_lengths_and_numbers_claim_no_memory(folder: Path, content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(IndexDataError, match="not hold plain data"):
            loaded(folder, content)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_deep_nesting(folder: Path) -> None:
    depth = 100_000
    found = loaded(folder, b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        (found,) = found
    assert found == []
    assert loaded(folder, b")" + b"\x85" * depth + b".")
    assert loaded(folder, b"(" * depth + b"t" * depth + b".")


@pytest.mark.parametrize("content", [b"}%sNs.", b"(%sNd.", b"\x8f(%s\x90.", b"(%s\x91."])
def test_containers_are_no_keys(folder: Path, content: bytes) -> None:
    """Python's own reader would hash them, and crash."""
    with pytest.raises(IndexDataError, match="a tuple is used as a key"):
        loaded(folder, content % (b")" + b"\x85" * 150_000))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"(.",
        b"(N.",
        b"NN.",
        b"t.",
        b"e.",
        b"u.",
        b"\x85.",
        b"\x86.",
        b"N\x86.",
        b"NN\x87.",
        b"a.",
        b"Na.",
        b"NNa.",
        b"NNNs.",
        b"](NNu.",
        b"}(Ne.",
        b"}(Nu.",
        b"(Nd.",
        b"](N\x90.",
        b"q\x00.",
        b"\x94.",
        b"h\x00.",
        b"g0\n.",
        b"FNaN",
        b"Fx\n.",
        b"Ix\n.",
        b"X\x01\0\0\0\xff.",
        b"V\\uZZZZ\n.",
        b"\xff",
    ],
)
def test_broken_pickles(folder: Path, content: bytes) -> None:
    with pytest.raises(IndexDataError, match="not hold plain data"):
        loaded(folder, content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truncated_pickles(folder: Path, protocol: int) -> None:
    content = pickle.dumps(
        {"1": ("text", "title", [1, 2.5, None, True, 10**30]), "2": ("ä" * 40, "")}, protocol
    )
    for kept in range(len(content)):
        with pytest.raises(IndexDataError, match="not hold plain data"):
            loaded(folder, content[:kept])


class PythonsReader(pickle._Unpickler):
    """Python's own reader, which imports nothing here, and reads on where a protocol is unknown."""

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.PROTO[0]: lambda self: self.read(1),
        pickle.FRAME[0]: lambda self: self.read(8),
    }

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def read_or_refused(folder: Path, content: bytes) -> str:
    """Check that a pickle is refused, or read as Python reads it, and tell which."""
    try:
        found = loaded(folder, content)
    except IndexDataError:
        return "refused"
    # As text: values may contain themselves, or no number.
    assert repr(found) == repr(PythonsReader(io.BytesIO(content)).load())
    return "read"


CODES = b"".join(instruction.code.encode("latin-1") for instruction in pickletools.opcodes)
INSTRUCTIONS = [
    *(b"N", b"\x88", b"K\x05", b"I1\n", b"X\x01\0\0\0a", b"C\x01b"),  # values
    *(b"]", b"}", b")", b"\x8f", b"(", b"0", b"\x94", b"q\0", b"h\0"),  # containers, marks, memory
    *(b"a", b"e", b"s", b"u", b"t", b"l", b"d", b"\x85", b"\x86", b"\x87", b"\x90", b"\x91"),
]


def test_garbage(folder: Path) -> None:
    outcomes = set()

    @settings(max_examples=200, deadline=None)
    @given(
        content=st.binary(max_size=80)
        | st.lists(st.sampled_from(CODES), max_size=60).map(lambda codes: bytes(codes) + b".")
        | st.lists(st.sampled_from(INSTRUCTIONS), max_size=12).map(lambda own: b"".join(own) + b".")
    )
    def check(content: bytes) -> None:
        outcomes.add(read_or_refused(folder, content))

    check()
    assert outcomes == {"read", "refused"}


def test_damaged_pickles(folder: Path) -> None:
    outcomes = set()

    @settings(max_examples=200, deadline=None)
    @given(
        data=PLAIN,
        protocol=st.sampled_from(PROTOCOLS),
        changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1),
    )
    def check(data: Any, protocol: int, changes: list[tuple[int, int]]) -> None:
        content = bytearray(pickle.dumps(data, protocol))
        for place, value in changes:
            content[place % len(content)] = value
        outcomes.add(read_or_refused(folder, bytes(content)))

    check()
    assert outcomes == {"read", "refused"}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(IndexDataError, match=f"{path} does not hold plain data"):
            load_plain_data(path)
