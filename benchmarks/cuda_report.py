"""The results of `benchmarks.cuda` as Markdown."""

from __future__ import annotations

from typing import Any


def table(header: list[str], rows: list[list[object]]) -> str:
    """Without the columns in which no row has anything, such as the device's clock where there is none."""
    filled = [k for k in range(len(header)) if not rows or any(str(row[k]) for row in rows)]
    lines = [[line[k] for k in filled] for line in (header, ["---"] * len(header), *rows)]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def not_run(found: dict[str, Any], columns: int) -> list[list[object]]:
    """Rows for those who have no turns on this machine, with the reason in the last column."""
    return [[who, *[""] * (columns - 2), f"not run: {why}"] for who, why in found.get("not_run", {}).items()]


def milliseconds(spread: dict[str, float] | None) -> str:
    """The median, and the quartiles behind it."""
    if spread is None:
        return ""
    median, low, high = (spread[key] * 1e3 for key in ("median", "low", "high"))
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


def _machine(facts: dict[str, Any]) -> str:
    gpu = facts.get("gpu") or {}
    architectures = ", ".join(facts.get("architectures", []))
    kernels = facts["kernels"] if facts["kernels"] == "usable" else f"not in use: {facts['kernels']}"
    if architectures:
        kernels += f"; built for {architectures}"
    elif facts["device"] == "cpu":  # on a device that is what was told
        kernels += "; this build has none"
    named = {
        "GPU": gpu and f"{gpu['name']}, {gpu['capability']}, {gpu['multiprocessors']} multiprocessors",
        "nvidia-smi": (facts.get("nvidia_smi") or "").replace("\n", "<br>"),
        "CPU": f"{facts['cpu']}, {facts['processors']} processors",
        "torch": f"{facts['torch']}, CUDA {facts['torch_cuda']}, cuDNN {facts['cudnn']}",
        "TF32, as torch comes": ", ".join(
            f"{what}: {'allowed' if allowed else 'off'}" for what, allowed in facts["tf32"].items()
        ),
        "torchvision": facts["torchvision"] or "not installed",
        "kernels": kernels,
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
                    f"{row['case']}, {counted(row['batch'], 'image')}",
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
        "Kernels: checked." if found["kernels"] == "checked" else f"Kernels: not run: {found['kernels']}.",
        "",
        table(["outputs", "threshold", "top_k", "candidates", "faces", "beside the CPU"], rows),
        "",
        f"Small cases with everything that can go wrong: {right} of {len(hard)} right.",
    ]
    if found["streams"] is not None:
        lines.append(f"Several threads and streams: {found['streams'] or 'right'}.")
    return "\n".join(lines)


def _sanitizer(found: dict[str, Any]) -> str:
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
            f"Batch of {row['batch']}, {counted(row['candidates'], 'candidate')}, at most "
            f"{row['options']['top_k']:,} of each image, {counted(row['faces'], 'face')}. "
            "Milliseconds of a call: median (quartiles).\n"
        )
        cells: list[list[object]] = []
        for name, seconds in row["seconds"].items():
            alone = row["partners"].get(name)
            note = f"{alone[0]} of {alone[1]} faces differ" if alone and alone[0] else ""
            cells.append([name, milliseconds(seconds["wall"]), milliseconds(seconds["in_a_row"]), note])
        cells += [[name, "", "", f"**no times: {why}**"] for name, why in row["failed"].items()]
        header = ["who", "alone, by the wall", "in a row, by the device", ""]
        cells += not_run(found, len(header))
        parts.append(table(header, cells) + "\n")
    return "\n".join(parts)


def _footprint(found: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    for row in found["rows"]:
        case = f"{row['case']}, threshold {row['options']['score_threshold']:g}"
        for name, memory in row["memory"].items():
            launches = row["launches"][name]
            counts = [launches[kind] for kind in ("kernels", "copies", "fills")] if launches else ["?"] * 3
            rows.append([case, name, *counts, f"{memory / 2**20:.1f}"])
        rows += [[case, name, "", "", "", f"**{why}**"] for name, why in row["failed"].items()]
        rows += [[case, *cells] for cells in not_run(found, 5)]
    header = ["outputs", "who", "kernels", "copies", "fills", "MiB"]
    return (
        table(header, rows)
        + "\n\nMemory beside the raw outputs. Of torch's ways what its allocator had handed out at most. "
        "The kernels take theirs from a pool of their own, outside of that: what the device has less than "
        "before their first call, so with their code, what the pool keeps from earlier rows, and in its "
        "coarse steps."
    )


def _rates(found: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in found["rows"]:
        if "missing" in row:
            reasons.setdefault((row["model"], row["missing"]), []).append(row["who"])
            continue
        if "rate" not in row:
            why = f"**failed: {row['failed']}**"
            rows.append([row["model"], row["who"], row.get("size", ""), row.get("pictures", ""), "", why])
            continue
        rate, beside = row["rate"], row.get("beside_float32")
        made_by = f", post-processing: {row['postprocessing']}" if "postprocessing" in row else ""
        note = f"{counted(row['faces'], 'face')}{made_by}" + (
            f"; beside float32 without TF32 {beside['without_partner']} alone, "
            f"scores within {beside['score']:.1e}, boxes within {beside['pixels']:.2f} pixels"
            if beside
            else ""
        )
        value = f"{rate['median']:.1f} ({rate['low']:.1f} to {rate['high']:.1f})"
        rows.append([row["model"], row["who"], row["size"], row["pictures"], value, note])
    # One line for all who have the same reason.
    rows += [[model, "; ".join(who), "", "", "", f"not run: {why}"] for (model, why), who in reasons.items()]
    return table(["model", "engine", "size", "pictures in a call", "pictures per second", ""], rows)


def _tests(found: dict[str, Any]) -> str:
    places = (("on the device", "device"), ("elsewhere", "host"))
    counts = "; ".join(
        f"{words} {', '.join(f'{count} {outcome}' for outcome, count in found[place].items())}"
        for words, place in places
    )
    said = "\n".join(found["lines"])
    more = "" if found["right"] else f"\n\n**Not as it should be.**\n\n```\n{said}\n```"
    return f"`{found['command']}`: exit code {found['exit']}. Tests {counts}.{more}"


SECTIONS = {
    "machine": ("Machine", _machine),
    "tests": ("Tests of the bindings and of the engine", _tests),
    "correctness": ("Answers", _correctness),
    "sanitizer": ("compute-sanitizer", _sanitizer),
    "times": ("Time of the post-processing", _times),
    "footprint": ("Launches and memory of the post-processing", _footprint),
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
            if "failed" in result:
                body = f"**Failed:**\n\n```\n{result['failed']}\n```"
            elif "missing" in result:
                body = f"Not run: {result['missing']}."
            else:
                body = write(result)
            parts.append(f"## {title}\n\n{body}\n")
    return "\n".join(parts)
