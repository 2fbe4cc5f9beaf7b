"""`retinaface-fast weights`: what is published, what is here, and the download."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from . import _console

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.weights import RegistryEntry

app = typer.Typer(help="List, download and locate weights.", no_args_is_help=True)


def state_of(entry: RegistryEntry) -> tuple[str, Path | None]:
    """Return where a registry entry is: "bundled", "downloaded" or "absent", and the file."""
    from retinaface_fast.weights import bundled_path, cache_dir

    bundled = bundled_path()
    if bundled is not None and bundled.stem == entry.name:
        return "bundled", bundled
    cached = cache_dir() / entry.filename
    return ("downloaded", cached) if cached.is_file() else ("absent", None)


def describe(entry: RegistryEntry) -> dict[str, object]:
    """Return what there is to say about a registry entry, as JSON takes it."""
    state, path = state_of(entry)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else None
    if state == "downloaded" and digest != entry.sha256:
        state = "damaged"
    return {
        "name": entry.name,
        "state": state,
        "path": str(path) if path is not None else None,
        # The bundled file is a conversion of the published one: its own digest differs.
        "file_sha256": digest,
        "url": entry.url,
        "sha256": entry.sha256,
        "size_bytes": entry.size_bytes,
        "licence": entry.licence,
        "widerface_ap": list(entry.ap),
        "format": entry.format,
    }


def weights_table(records: list[dict[str, object]]) -> Table:
    """Return the table of `weights list`."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("AP easy/med/hard", no_wrap=True)  # 80 columns hold all of it, downloaded ones, too
    table.add_column("sha256", no_wrap=True)
    table.add_column("licence")
    for record in records:
        ap, size = record["widerface_ap"], record["size_bytes"]
        assert isinstance(ap, list)
        table.add_row(
            str(record["name"]),
            str(record["state"]),
            f"{size / 1e6:.1f}" if isinstance(size, int) else "-",
            " ".join(f"{value:.2f}" for value in ap),
            f"{str(record['file_sha256'] or record['sha256'])[:8]}…",
            str(record["licence"]).partition(" (")[0],
        )
    return table


@app.command("list")
def list_weights(
    *, as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False
) -> None:
    """List the published weights, and which of them are on this machine.

    AP is the published average precision on WIDER FACE val (easy, medium, hard) at original size, in percent.
    """
    from retinaface_fast.weights import REGISTRY, cache_dir

    records = [describe(entry) for entry in REGISTRY.values()]
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    _console.stdout().print(weights_table(records))
    _console.line(_console.stdout(), f"downloads go to {cache_dir()}")


@app.command()
def download(
    names: Annotated[list[str] | None, typer.Argument(help="Names from `weights list`.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Download all of them.")] = False,
) -> None:
    """Download weights into the cache and check their sha256; what is there already is left alone."""
    from retinaface_fast.weights import REGISTRY
    from retinaface_fast.weights import download as fetch

    wanted = list(REGISTRY) if everything else list(names or [])
    if not wanted:
        raise typer.BadParameter("name weights to download, or --all", param_hint="NAMES")
    _check(wanted)
    for name in wanted:
        _console.line(_console.stdout(), str(fetch(name)))  # draws its own bar on the standard error


@app.command()
def path(name: Annotated[str, typer.Argument(help="A name from `weights list`.")]) -> None:
    """Print where weights are on this machine; exit code 1 if they are not."""
    from retinaface_fast.weights import REGISTRY

    _check([name])
    _, found = state_of(REGISTRY[name])
    if found is None:
        _console.error(f"{name} is not on this machine: retinaface-fast weights download {name}")
        raise typer.Exit(1)
    _console.line(_console.stdout(), str(found))


def _check(names: list[str]) -> None:
    from retinaface_fast.weights import REGISTRY

    for name in names:
        if name not in REGISTRY:
            raise typer.BadParameter(f"{name} is none of {', '.join(REGISTRY)}", param_hint="NAMES")
