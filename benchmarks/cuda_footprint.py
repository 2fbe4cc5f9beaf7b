"""What a call of everyone asks of a CUDA device, for `benchmarks.cuda`: launches and memory.

In a process of its own, because torch's profiler stays attached to the device once it has run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import cuda_cases, cuda_ways

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cuda_cases import Case
    from benchmarks.opponents import Options


def footprint(cases: list[tuple[Case, Options]], device: str, *, with_kernels: bool) -> dict[str, Any]:
    """Memory of all cases, then launches: nobody's memory is that of the profiler."""
    rows: list[dict[str, Any]] = []
    everyone = []
    pool = Pool(device)
    for case, options in cases:
        tensors = cuda_cases.on_device(case, device)
        ways = cuda_ways.contestants(case, tensors, options, with_kernels=with_kernels, threads=1)
        memory: dict[str, int] = {}
        failed: dict[str, str] = {}
        for name, call in ways.items():
            ours = name in (cuda_ways.KERNELS, cuda_ways.KERNELS + cuda_ways.TO_HOST)
            try:
                memory[name] = pool.after(call) if ours else peak_of_torch(call, device)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
        everyone.append({name: call for name, call in ways.items() if name not in failed})
        rows.append(
            {
                "case": case.name,
                "options": options._asdict(),
                "memory": memory,
                "failed": failed,
            }
        )
    for row, ways in zip(rows, everyone, strict=True):
        row["launches"] = {name: launches(call, device) for name, call in ways.items()}
    return {"rows": rows}


def peak_of_torch(call: Callable[[], object], device: str) -> int:
    """Bytes that torch's allocator had handed out at most, beyond those from before the call."""
    import torch

    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


class Pool:
    """What our kernels hold of the device, outside of torch's allocator: workspace, faces, and their code.

    All that can be seen is what the device has left. What a pool has once taken serves the next call too and
    mostly stays, so that cases have to come by their size, and what they took is added up.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.held = 0

    def free(self) -> int:
        import torch

        return int(torch.cuda.mem_get_info(self.device)[0])

    def after(self, call: Callable[[], object]) -> int:
        """Bytes that are held once a call has been enqueued, before a wait can give some back."""
        import torch

        torch.cuda.synchronize(self.device)
        before = self.free()
        result = call()
        most = self.held + before - self.free()
        del result
        torch.cuda.synchronize(self.device)
        self.held += before - self.free()
        return most


def launches(call: Callable[[], object], device: str) -> dict[str, int] | None:
    """Kernels, copies and fills of one call, by torch's profiler; None where that sees none, or fails."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    counts: dict[str, int] = {}
    try:
        for _ in range(2):  # the first time, it and the code of the call have yet to be loaded
            counts = {"kernels": 0, "copies": 0, "fills": 0}
            torch.cuda.synchronize(device)
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                call()
                torch.cuda.synchronize(device)
            for event in profiler.events():
                if event.device_type == DeviceType.CUDA:
                    name = event.name
                    kind = "copies" if "Memcpy" in name else "fills" if "Memset" in name else "kernels"
                    counts[kind] += 1
    except RuntimeError:  # without the library that counts, or the right to use it
        return None
    return counts if any(counts.values()) else None
