"""The results of `benchmarks.cuda` as Markdown."""

from __future__ import annotations

from typing import Any


def table(header: list[str], rows: list[list[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def milliseconds(spread: dict[str, float] | None) -> str:
    """The median, and the quartiles behind it."""
    if spread is None:
        return ""
    median, low, high = (spread[key] * 1e3 for key in ("median", "low", "high"))
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


def _machine(facts: dict[str, Any]) -> str:
    gpu = facts.get("gpu") or {}
    named = {
        "GPU": gpu and f"{gpu['name']}, {gpu['capability']}, {gpu['multiprocessors']} multiprocessors",
        "nvidia-smi": (facts.get("nvidia_smi") or "").replace("\n", "<br>"),
        "CPU": f"{facts['cpu']}, {facts['processors']} processors",
        "torch": f"{facts['torch']}, CUDA {facts['torch_cuda']}",
        "torchvision": facts["torchvision"],
        "kernels": f"{facts['kernels']}; for {', '.join(facts.get('architectures', [])) or 'nothing'}",
        "retinaface_fast": f"{facts['retinaface_fast']}, commit {facts['commit']}, {facts['simd_level']}",
        "Python, system": f"{facts['python']}, {facts['system']}",
    }
    return table(["what", "which"], [[name, value] for name, value in named.items() if value])


def _correctness(found: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    for row in found["rows"]:
        if row["wrong"] or not row["case"].startswith("hard"):
            options = row["options"]
            verdict = "; ".join(f"**{who}: {what}**" for who, what in row["wrong"].items())
            limit = "all" if options["top_k"] > 10**9 else options["top_k"]
            rows.append(
                [
                    f"{row['case']}, {row['batch']} images",
                    options["score_threshold"],
                    limit,
                    f"{row['candidates']:,}",
                    f"{row['faces']:,}",
                    verdict or "same bits: " + ", ".join(row["ways"]),
                ]
            )
    hard = [row for row in found["rows"] if row["case"].startswith("hard")]
    right = sum(not row["wrong"] for row in hard)
    lines = [
        f"Kernels: {found['kernels']}.",
        "",
        table(["outputs", "threshold", "top_k", "candidates", "faces", "beside the CPU"], rows),
        "",
        f"Small cases with everything that can go wrong: {right} of {len(hard)} right.",
    ]
    if found["streams"] is not None:
        lines.append(f"Several threads and streams: {found['streams'] or 'right'}.")
    return "\n".join(lines)


def _sanitizer(found: dict[str, Any]) -> str:
    if "missing" in found:
        return f"Not run: {found['missing']}."
    rows: list[list[object]] = [
        [
            tool,
            "clean" if result["exit"] == 0 else f"**exit code {result['exit']}**",
            "<br>".join(result["summary"]),
        ]
        for tool, result in found["tools"].items()
    ]
    return table(["tool", "verdict", "summary"], rows)


def _times(found: dict[str, Any]) -> str:
    parts = []
    for row in found["rows"]:
        parts.append(
            f"### {row['case']}, threshold {row['options']['score_threshold']:g}\n\n"
            f"Batch of {row['batch']}, {row['candidates']:,} candidates, {row['faces']:,} faces. "
            "Milliseconds of a call: median (quartiles).\n"
        )
        cells: list[list[object]] = []
        for name, seconds in row["seconds"].items():
            launches = row["launches"].get(name)
            counts = (
                f"{launches['kernels']} + {launches['copies']} + {launches['fills']}"
                if isinstance(launches, dict)
                else ""
            )
            alone = row["partners"].get(name)
            note = f"{alone[0]} of {alone[1]} faces differ" if alone and alone[0] else ""
            cells.append(
                [name, milliseconds(seconds["wall"]), milliseconds(seconds["in_a_row"]), counts, note]
            )
        cells += [[name, "", "", "", f"**no times: {why}**"] for name, why in row["failed"].items()]
        header = ["who", "alone, by the wall", "in a row, by the device", "kernels + copies + fills", ""]
        parts.append(table(header, cells) + "\n")
    return "\n".join(parts)


def _rates(found: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    for row in found["rows"]:
        if "rate" not in row:
            rows.append(
                [row["model"], row["who"], row.get("size", ""), row.get("pictures", ""), "", row["failed"]]
            )
            continue
        rate, beside = row["rate"], row.get("beside_float32")
        made_by = f", post-processing: {row['postprocessing']}" if "postprocessing" in row else ""
        note = f"{row['faces']} faces{made_by}" + (
            f"; beside float32 {beside['without_partner']} alone, scores within {beside['score']:.1e}, "
            f"boxes within {beside['pixels']:.2f} pixels"
            if beside
            else ""
        )
        value = f"{rate['median']:.1f} ({rate['low']:.1f} to {rate['high']:.1f})"
        rows.append([row["model"], row["who"], row["size"], row["pictures"], value, note])
    return table(["model", "engine", "size", "pictures in a call", "pictures per second", ""], rows)


def _tests(found: dict[str, Any]) -> str:
    return f"`{found['command']}`: exit code {found['exit']}, {found['summary']}."


SECTIONS = {
    "machine": ("Machine", _machine),
    "tests": ("Tests of the bindings and of the engine", _tests),
    "correctness": ("Answers", _correctness),
    "sanitizer": ("compute-sanitizer", _sanitizer),
    "times": ("Time of the post-processing", _times),
    "rates": ("Rate of the whole detection", _rates),
}


def markdown(record: dict[str, Any]) -> str:
    """Tables of the parts that are there; of one that failed, its last words."""
    parts = ["# Post-processing on a CUDA device\n"]
    if record["quick"]:
        parts.append("With `--quick`: this shows whether the script works, and measures nothing.\n")
    for name, (title, write) in SECTIONS.items():
        if name in record:
            result = record[name]
            body = f"Failed:\n\n```\n{result['failed']}\n```" if "failed" in result else write(result)
            parts.append(f"## {title}\n\n{body}\n")
    return "\n".join(parts)
