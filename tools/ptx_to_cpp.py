#!/usr/bin/env python3
"""The PTX that nvcc made of the CUDA kernels, as C++: what nvcc compiled then runs in tests on the CPU.

    python tools/ptx_to_cpp.py sm_80.ptx kernels_from_ptx.inc

Each instruction becomes a statement, each kernel a function of the same name and parameters, to be run by
csrc/tests/cuda_on_cpu. Only what our kernels need is known; anything else is an error, and so is arithmetic
that does not round to nearest. What a register holds has one of five types, as in PTX, and instructions look
at its bits as theirs says.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

#: Parameters of the kernels, in order; all have the first.
PARAMETERS = ("Problem", "unsigned")

REGISTERS = {
    "%p": "bool",
    "%rs": "std::uint16_t",
    "%r": "std::uint32_t",
    "%f": "float",
    "%rd": "std::uint64_t",
}
SPECIAL = {
    f"%{ptx}.{axis}": f"{name}.{axis}"
    for ptx, name in {
        "tid": "threadIdx",
        "ntid": "blockDim",
        "ctaid": "blockIdx",
        "nctaid": "gridDim",
    }.items()
    for axis in "xyz"
}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
FLOAT_SIGNS = {"add.rn": "+", "sub.rn": "-", "mul.rn": "*", "div.rn": "/"}
SIGNS = {"add": "+", "sub": "-", "mul.lo": "*", "and": "&", "or": "|", "xor": "^"}
PREDICATE_SIGNS = {"and": "&&", "or": "||", "xor": "!="}

KERNEL = re.compile(r"\.visible \.entry (\w+)\((.*?)\)\s*[^{]*\{(.*?)\n\}", re.DOTALL)
SHARED = re.compile(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]")
ADDRESS = re.compile(r"\[([^+\]]+)(?:\+(-?\d+))?\]")


def cpp_type(kind: str) -> str:
    """The C++ type of a type of PTX, such as u32; b32 is taken for unsigned."""
    if kind in ("pred", "f32"):
        return {"pred": "bool", "f32": "float"}[kind]
    return f"std::{'' if kind[0] == 's' else 'u'}int{kind[1:]}_t"


def unsigned(kind: str) -> str:
    """The same bits without a sign, for which C++ defines every overflow."""
    return kind if kind in ("pred", "f32") else f"u{kind[1:]}"


class Kernel:
    """One kernel on its way."""

    def __init__(self, name: str, parameters: str, body: str) -> None:
        self.name = name
        self.parameters = PARAMETERS[: len(re.findall(r"_param_\d+", parameters))]
        self.registers: dict[str, str] = {}
        self.shared: dict[str, int] = {}
        self.shared_bytes = 0
        self.read_registers: set[str] = set()
        self.written_registers: set[str] = set()
        self.lines = [line for line in map(self.statement, self.split(body)) if line]
        if lost := self.read_registers - self.written_registers:
            self.refuse(f"what would write {', '.join(sorted(lost))}")

    def refuse(self, what: str) -> NoReturn:
        raise ValueError(f"{self.name}: {what} is not known here")

    @staticmethod
    def split(body: str) -> list[str]:
        """Labels, declarations and instructions; the braces of a block within hold names of their own."""
        text = re.sub(r"^\s*[{}]", "", body, flags=re.MULTILINE)
        return [" ".join(part.split()) for part in re.findall(r"\s*\$\w+:|[^;]+;", text)]

    def statement(self, line: str) -> str:
        if line.endswith(":"):
            return f"{self.label(line[:-1])}:;"
        line = line.rstrip(";").strip()
        if shared := SHARED.match(line):
            align, size = int(shared[1]), int(shared[3])
            self.shared[shared[2]] = -(-self.shared_bytes // align) * align
            self.shared_bytes = self.shared[shared[2]] + size
            return ""
        if line.startswith((".reg", ".pragma")) or not line:
            return ""
        guard = re.match(r"@(!?)(%p\d+) ", line)
        condition = f"if ({guard[1]}{self.read(guard[2], 'pred')}) " if guard else ""
        operation, _, rest = line[guard.end() if guard else 0 :].partition(" ")
        operands = [part.strip() for part in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", rest)]
        head = operation.partition(".")[0]
        step = STEPS.get(head) or self.refuse(operation)
        return f"{condition}{{ {step(self, operation, operands)} }}"

    # --- operands

    @staticmethod
    def label(word: str) -> str:
        return word.replace("$", "").replace("__", "_")

    def register(self, word: str) -> tuple[str, str] | None:
        """Type and name in C++ of a register; None of anything else."""
        found = re.fullmatch(r"(%p|%rs|%rd|%r|%f)(\d+)", word)
        if not found:
            return None
        name = f"{found[1][1:]}_{found[2]}"
        self.registers[name] = REGISTERS[found[1]]
        return REGISTERS[found[1]], name

    def constant(self, word: str) -> tuple[str, str]:
        """Type and value in C++ of an operand that is no register."""
        if word in SPECIAL:
            return "unsigned", SPECIAL[word]
        if word in self.shared:
            return "int", str(self.shared[word])
        if found := re.fullmatch(rf"{self.name}_param_(\d+)", word):
            return "std::uint64_t", f"reinterpret_cast<std::uint64_t>(&parameter_{found[1]})"
        if found := re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})", word):
            return "float", f"bits<float>(std::uint32_t{{0x{found[1]}U}})"
        if re.fullmatch(r"-?\d+", word):
            return "long long", f"{word}LL"
        return self.refuse(f"the operand {word}")

    def read(self, word: str, kind: str) -> str:
        """The value of an operand as a type."""
        wanted = cpp_type(kind)
        register = self.register(word)
        if register:
            self.read_registers.add(register[1])
        held, value = register or self.constant(word)
        if held == wanted:
            return value
        return f"bits<{wanted}>({value})" if "float" in (held, wanted) else f"static_cast<{wanted}>({value})"

    def write(self, word: str, kind: str, value: str) -> str:
        held, name = self.register(word) or self.refuse(f"the result {word}")
        self.written_registers.add(name)
        given = cpp_type(kind)
        if held == given:
            return f"{name} = {value};"
        if "float" in (held, given):
            return f"{name} = bits<{held}>({value});"
        return f"{name} = static_cast<{held}>(static_cast<{given}>({value}));"

    def pointer(self, word: str, space: str) -> str:
        base, offset = (ADDRESS.fullmatch(word) or self.refuse(f"the address {word}")).groups("0")
        if space == "shared":
            return f"shared_memory + {self.read(base, 's32')} + {offset}"
        return f"reinterpret_cast<char*>({self.read(base, 'u64')}) + {offset}"

    # --- instructions

    def branch(self, _: str, operands: list[str]) -> str:
        return f"goto {self.label(operands[0])};"

    def leave(self, *_: object) -> str:
        return "return;"

    def barrier(self, operation: str, operands: list[str]) -> str:
        if operation == "bar.warp.sync":
            return f"__syncwarp({self.read(operands[0], 'u32')});"
        if operation == "bar.sync" and operands == ["0"]:
            return "__syncthreads();"
        return self.refuse(f"{operation} {operands}")

    def vote(self, operation: str, operands: list[str]) -> str:
        if operation != "vote.sync.ballot.b32":
            self.refuse(operation)
        result, predicate, mask = operands
        vote = f"__ballot_sync({self.read(mask, 'u32')}, {self.read(predicate, 'pred')})"
        return self.write(result, "u32", vote)

    def shuffle(self, operation: str, operands: list[str]) -> str:
        functions = {"shfl.sync.idx.b32": "__shfl_sync", "shfl.sync.down.b32": "__shfl_down_sync"}
        function = functions.get(operation) or self.refuse(operation)
        result, value, lane, clamp, mask = operands
        of = "static_cast<int>" if function == "__shfl_sync" else ""
        call = (
            f"{function}({self.read(mask, 'u32')}, {self.read(value, 'u32')}, {of}({self.read(lane, 'u32')}))"
        )
        # Whether the lane was in range, behind the bar, is not written: nothing may read it.
        whole_warp = f"require({self.read(clamp, 'u32')} == 31U); "
        return whole_warp + self.write(result.partition("|")[0], "u32", call)

    def atomic(self, operation: str, operands: list[str]) -> str:
        if operation != "atom.global.add.u32":
            self.refuse(operation)
        result, address, value = operands
        target = f"reinterpret_cast<std::uint32_t*>({self.pointer(address, 'global')})"
        return self.write(result, "u32", f"atomicAdd({target}, {self.read(value, 'u32')})")

    def transfer(self, operation: str, operands: list[str]) -> str:
        """Loads and stores, of one register or a vector; PTX wants addresses aligned to all of it."""
        head, space, *_, kind = operation.split(".")
        memory, registers = reversed(operands) if head == "ld" else operands
        names = re.findall(r"[^{},\s]+", registers)
        size = int(kind[1:]) // 8
        pointer = self.pointer(memory, space)
        code = [f"require_aligned({pointer}, {size * len(names)});"]
        for k, name in enumerate(names):
            at = f"{pointer} + {k * size}"
            if head == "ld":
                code.append(self.write(name, kind, f"load<{cpp_type(kind)}>({at})"))
            else:
                code.append(f"store<{cpp_type(kind)}>({at}, {self.read(name, kind)});")
        return " ".join(code)

    def move(self, operation: str, operands: list[str]) -> str:
        result, value = operands
        kind = "u64" if operation.startswith("cvta") else operation.rpartition(".")[2]
        if result.startswith("{"):
            low, high = re.findall(r"[^{},\s]+", result)
            whole = self.read(value, "u64")
            return self.write(low, "u32", f"low_half({whole})") + self.write(
                high, "u32", f"low_half({whole} >> 32)"
            )
        if value.startswith("{"):
            low, high = (self.read(word, "u32") for word in re.findall(r"[^{},\s]+", value))
            return self.write(result, "u64", f"{low} | static_cast<std::uint64_t>({high}) << 32")
        return self.write(result, kind, self.read(value, kind))

    def compare(self, operation: str, operands: list[str]) -> str:
        _, comparison, kind = operation.split(".")
        result, *words = operands
        one, other = (self.read(word, kind) for word in words)
        unordered = f"{one} != {one} || {other} != {other}"
        if comparison == "nan":
            return self.write(result, "pred", unordered)
        if kind == "f32" and comparison.endswith("u"):
            return self.write(result, "pred", f"{unordered} || {one} {COMPARISONS[comparison[:-1]]} {other}")
        if kind == "f32" and comparison == "ne":  # ordered, unlike that of C++
            return self.write(result, "pred", f"!({unordered}) && {one} != {other}")
        return self.write(result, "pred", f"{one} {COMPARISONS[comparison]} {other}")

    def choose(self, operation: str, operands: list[str]) -> str:
        kind = operation.partition(".")[2]
        result, one, other, condition = operands
        value = f"{self.read(condition, 'pred')} ? {self.read(one, kind)} : {self.read(other, kind)}"
        return self.write(result, kind, value)

    def convert(self, operation: str, operands: list[str]) -> str:
        _, *rounding, to, of = operation.split(".")
        floats = "f32" in (to, of)
        if floats != bool(rounding) or (floats and (*rounding, to) not in (("rn", "f32"), ("rzi", "s32"))):
            self.refuse(operation)
        result, value = operands
        return self.write(result, to, f"static_cast<{cpp_type(to)}>({self.read(value, of)})")

    def arithmetic(self, operation: str, operands: list[str]) -> str:
        head, _, kind = operation.rpartition(".")
        result, one, other = operands
        if head == "mul.wide":
            wide = f"{kind[0]}64"
            factors = (f"static_cast<{cpp_type(wide)}>({self.read(word, kind)})" for word in (one, other))
            return self.write(result, wide, " * ".join(factors))
        signs = {"f32": FLOAT_SIGNS, "pred": PREDICATE_SIGNS}.get(kind, SIGNS)
        sign = signs.get(head) or self.refuse(operation)
        kind = unsigned(kind)
        return self.write(result, kind, f"{self.read(one, kind)} {sign} {self.read(other, kind)}")

    def multiply_add(self, operation: str, operands: list[str]) -> str:
        if operation not in ("mad.lo.s32", "mad.lo.u32", "mad.lo.s64", "mad.lo.u64"):
            self.refuse(operation)
        kind = unsigned(operation.rpartition(".")[2])
        result, *words = operands
        one, other, addend = (self.read(word, kind) for word in words)
        return self.write(result, kind, f"{one} * {other} + {addend}")

    def reciprocal(self, operation: str, operands: list[str]) -> str:
        if operation != "rcp.rn.f32":
            self.refuse(operation)
        return self.write(operands[0], "f32", f"1.0F / {self.read(operands[1], 'f32')}")

    def negate(self, operation: str, operands: list[str]) -> str:
        kind = unsigned(operation.rpartition(".")[2])
        value = self.read(operands[1], kind)
        return self.write(operands[0], kind, f"-{value}" if kind == "f32" else f"0U - {value}")

    def invert(self, operation: str, operands: list[str]) -> str:
        kind = operation.rpartition(".")[2]
        value = self.read(operands[1], kind)
        return self.write(operands[0], kind, f"!{value}" if kind == "pred" else f"~{value}")

    def extreme(self, operation: str, operands: list[str]) -> str:
        head, kind = operation.split(".")
        if kind == "f32":
            self.refuse(operation)
        one, other = (self.read(word, kind) for word in operands[1:])
        return self.write(
            operands[0], kind, f"{one} {'<' if head == 'min' else '>'} {other} ? {one} : {other}"
        )

    def shift(self, operation: str, operands: list[str]) -> str:
        """By more than there are bits, too: nothing is left then but the sign."""
        head, kind = operation.split(".")
        kind = kind if head == "shr" and kind[0] == "s" else unsigned(kind)
        value, by = self.read(operands[1], kind), self.read(operands[2], "u32")
        sign = "<<" if head == "shl" else ">>"
        beyond = f"{value} >> {int(kind[1:]) - 1}U" if kind[0] == "s" else "0U"
        return self.write(operands[0], kind, f"{by} < {kind[1:]}U ? {value} {sign} {by} : {beyond}")

    def count(self, operation: str, operands: list[str]) -> str:
        head, kind = operation.split(".")
        function = {"popc": "count_ones", "clz": "count_leading_zeros"}[head]
        return self.write(operands[0], "u32", f"{function}({self.read(operands[1], unsigned(kind))})")

    def insert(self, operation: str, operands: list[str]) -> str:
        kind = unsigned(operation.rpartition(".")[2])
        result, value, into, at, length = operands
        bits = f"{self.read(value, kind)}, {self.read(into, kind)}"
        return self.write(
            result, kind, f"insert_bits({bits}, {self.read(at, 'u32')}, {self.read(length, 'u32')})"
        )

    # --- result

    def code(self) -> str:
        parameters = ", ".join(f"const {name} parameter_{k}" for k, name in enumerate(self.parameters))
        shared = f"alignas(16) static char shared_memory[{self.shared_bytes}];" if self.shared else ""
        registers = [f"{held} {name}{{}};" for name, held in sorted(self.registers.items())]
        body = "\n".join(f"    {line}" for line in (shared, *registers, *self.lines))
        return f'extern "C" void {self.name}({parameters}) {{\n{body}\n}}\n'


STEPS: dict[str, Callable[[Kernel, str, list[str]], str]] = {
    "bra": Kernel.branch,
    "ret": Kernel.leave,
    "bar": Kernel.barrier,
    "vote": Kernel.vote,
    "shfl": Kernel.shuffle,
    "atom": Kernel.atomic,
    "ld": Kernel.transfer,
    "st": Kernel.transfer,
    "mov": Kernel.move,
    "cvta": Kernel.move,
    "setp": Kernel.compare,
    "selp": Kernel.choose,
    "cvt": Kernel.convert,
    **dict.fromkeys(("add", "sub", "mul", "div", "and", "or", "xor"), Kernel.arithmetic),
    "mad": Kernel.multiply_add,
    "rcp": Kernel.reciprocal,
    "neg": Kernel.negate,
    "not": Kernel.invert,
    "min": Kernel.extreme,
    "max": Kernel.extreme,
    "shl": Kernel.shift,
    "shr": Kernel.shift,
    "popc": Kernel.count,
    "clz": Kernel.count,
    "bfi": Kernel.insert,
}


def translate(ptx: str) -> str:
    """All kernels of a PTX file as C++.

    Raises:
        ValueError: If something in it is not known here.
    """
    code = re.sub(r"//[^\n]*", "", ptx)
    return "\n".join(Kernel(*found.groups()).code() for found in KERNEL.finditer(code))


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(translate(source.read_text(encoding="utf-8")), encoding="utf-8")
