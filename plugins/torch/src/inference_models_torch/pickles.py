"""What a pickle would call, and how long it would take, told without running it.

With `weights_only=True` torch calls nothing but what is on a list of its own. Some of
that allocates as much memory as a number in the file says, and hashing nested tuples
can take any time and all of the stack. Tensors and plain data need none of it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import attrs

from inference_models import InvalidWeights

# What makes tensors, of storages and of tensors.
_REBUILDS = frozenset(
    {
        "torch.nn.parameter Parameter",  # by torch before 0.4
        "torch._utils _rebuild_parameter",
        *(f"torch._utils _rebuild_tensor{version}" for version in ("", "_v2", "_v3")),
    }
)
# What makes values of plain ones; given a tensor, some would walk through all of it.
_CONSTRUCTS = frozenset(
    {
        *("argparse Namespace", "types SimpleNamespace"),
        *("collections Counter", "collections OrderedDict"),
        *("torch Size", "torch device"),
        *("builtins complex", "builtins set"),
        *("__builtin__ complex", "__builtin__ set"),
    }
)

# A network of 600 tensors takes 50,000, and with its optimizer 200,000.
_STEPS = 2**22
_DEPTH = 100

_PUTS = ("BINPUT", "LONG_BINPUT")
_GETS = ("BINGET", "LONG_BINGET")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_FILLS = ("APPEND", "APPENDS", "BUILD", "SETITEM", "SETITEMS")


def check_pickle(path: Path, file: IO[bytes]) -> None:
    """Read one pickle of a file; `InvalidWeights` if it does more than hold data."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode, argument)
    except _Refused as reason:
        raise refused(path, str(reason)) from None


def refused(path: Path, reason: str) -> InvalidWeights:
    """What to raise for a file that holds, or does, more than it should."""
    return InvalidWeights(
        f"'{path}' {reason}, and is not loaded; save its state_dict() with "
        "safetensors.torch.save_file"
    )


class _Refused(Exception):
    """What is wrong with a pickle, in words that follow its name."""


class _Value(NamedTuple):
    """What has to be known of a value on a pickle's stack."""

    kind: str
    """The opcode that made it."""
    name: str = ""
    """Module and name of a global."""
    size: int = 1
    """Values in a tuple, each counted as often as it is met."""
    depth: int = 0
    made: bool = False
    """Whether a call made it, or an item of the tuple that it is."""


_MADE = _Value("REDUCE", made=True)


@attrs.define
class _Machine:
    """The stack and the memo of a pickle's reader."""

    stack: list[_Value] = attrs.field(factory=list)
    memo: dict[int, _Value] = attrs.field(factory=dict)
    steps: int = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do to the stack what the opcode does; `_Refused` for what it must not do."""
        name = opcode.name
        self._count(1)
        if name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif opcode.stack_before:
            taken = self._take(opcode.stack_before)
            self._count(sum([value.size for value in taken]))
            if opcode.stack_after:
                self.stack.append(_combined(name, taken))
        elif name == "EMPTY_TUPLE":
            self.stack.append(_tuple(()))
        elif opcode.stack_after:
            self.stack.append(_Value(name, argument if name == "GLOBAL" else ""))

    def _take(self, before: Sequence[pickletools.StackObject]) -> list[_Value]:
        """Pop what an opcode takes, without the mark in it."""
        mark = len(self.stack)
        below = len(before)
        if pickletools.markobject in before:
            below = before.index(pickletools.markobject)
            mark -= 1
            while self.stack[mark].kind != "MARK":
                mark -= 1
        taken = self.stack[mark - below : mark] + self.stack[mark + 1 :]
        del self.stack[mark - below :]
        return taken

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _STEPS:
            raise _Refused(f"takes more than {_STEPS} steps to read, as no weights do")


def _combined(kind: str, taken: Sequence[_Value]) -> _Value:
    """What an opcode pushes in place of what it took."""
    if kind in _TUPLES:
        return _tuple(taken)
    if kind in ("REDUCE", "NEWOBJ"):
        _check_call(*taken)
        return _MADE
    if kind == "BINPERSID":
        _check_storage(*taken)
        return _MADE
    if kind == "BUILD":
        _check_state(*taken)
    return taken[0] if kind in _FILLS else _Value(kind)


def _tuple(items: Sequence[_Value]) -> _Value:
    depth = 1 + max([item.depth for item in items], default=0)
    if depth > _DEPTH:
        raise _Refused(f"nests tuples more than {_DEPTH} deep, as no weights do")
    size = 1 + sum([item.size for item in items])
    return _Value("TUPLE", "", size, depth, any(item.made for item in items))


def _check_call(function: _Value, arguments: _Value) -> None:
    code = function.name.replace(" ", ".") or "a call of what it made itself"
    if function.name not in _REBUILDS | _CONSTRUCTS:
        raise _Refused(f"holds {code}, which could run code or take all memory")
    plain = not arguments.made or function.name in _REBUILDS
    if arguments.kind != "TUPLE" or not plain:
        raise _Refused(f"gives {code} what could take all memory")


def _check_storage(named: _Value) -> None:
    if named.made:
        raise _Refused("names a storage by what it made itself")


def _check_state(filled: _Value, state: _Value) -> None:
    if state.kind not in ("EMPTY_DICT", "TUPLE"):
        raise _Refused("gives the state of an object what could take all memory")
