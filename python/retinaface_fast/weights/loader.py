"""Weights by name or path, whatever the format; and the file format of this package."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_fast._files import write_whole
from retinaface_fast.errors import WeightsError
from retinaface_fast.network.config import CONFIGS, RetinaFaceConfig

from .model_weights import ModelWeights, assemble, make_weights
from .registry import REGISTRY
from .safetensors_file import read_safetensors, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retinaface_fast._typing import AnyArray

    from .onnx_nodes import Graph
    from .state_dict import TranslatedTensors

__all__ = [
    "FORMAT_VERSION",
    "WeightsFile",
    "bundled_path",
    "file_metadata",
    "load_weights",
    "read_file",
    "save_weights",
]

#: Version of what `save_weights` writes; a reader refuses a newer one.
FORMAT_VERSION = 1

_FORMAT_KEY = "retinaface_fast.format"
_CONFIG_KEY = "retinaface_fast.config"
_LAYOUT_KEY = "retinaface_fast.layout"  # of an ONNX file; `engines.onnx_export` writes it
#: What describes the file and not the weights.
_FILE_KEYS = frozenset({_FORMAT_KEY, _CONFIG_KEY, _LAYOUT_KEY})
_TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".tar")
_SUFFIXES = (".safetensors", ".onnx", *_TORCH_SUFFIXES)
#: The weights that travel inside the package.
_BUNDLED_NAME = "mobilenet0.25"
_BUNDLED_FILE = f"{_BUNDLED_NAME}.safetensors"


def load_weights(source: str | os.PathLike[str], *, config: RetinaFaceConfig | None = None) -> ModelWeights:
    """Load weights and check them against the network, tensor by tensor.

    Args:
        source: A name of `REGISTRY`, taken from the package, the cache, or the publisher, in this order; or
            the path of a file: `.safetensors`, `.onnx`, or a torch state dict (`.pth`, `.pt`, `.ckpt`,
            `.tar`). For a path, nothing is ever downloaded.
        config: The network that the weights must fit. By default the file says so itself, or its tensors are
            compared with those of `retinaface_fast.network.CONFIGS`.

    Returns:
        The weights, with batch norm folded in.

    Raises:
        ValueError: If the source is empty, or neither a known name nor looks like a path.
        WeightsError: If the file is missing, a folder or damaged, does not fit the network (the message names
            the tensors), holds values that are not finite, cannot be downloaded, or is a pickle that holds
            more than tensors. No code in a file is ever run.
        MissingDependencyError: If an ONNX file is read and `onnx` is not installed, or a torch state dict and
            `torch` is not.

    Example:
        >>> from retinaface_fast.weights import load_weights
        >>> load_weights("absent.onnx")
        Traceback (most recent call last):
        retinaface_fast.errors.WeightsError: absent.onnx does not exist
    """
    if isinstance(source, str) and source in REGISTRY:
        return _load_published(source, config)
    if not os.fspath(source):
        raise ValueError("source must be a name or the path of a file, got an empty one")
    path = Path(source)
    if isinstance(source, str) and path.suffix not in _SUFFIXES and path.name == source and not path.exists():
        raise ValueError(
            f"source: expected one of {', '.join(REGISTRY)} or the path of a {', '.join(_SUFFIXES)} file, "
            f"got {source!r}"
        )
    return _load_file(path, config)


def save_weights(weights: ModelWeights, path: str | os.PathLike[str]) -> None:
    """Write weights as safetensors, from which `load_weights` restores them with nothing else.

    The bytes depend on the weights alone. What cannot be told from the tensors goes into the metadata: format
    version, network, pixel mean, channel order, anchors, and whatever `weights.metadata` holds, such as
    licence and provenance. The file appears in one step or not at all.

    Args:
        weights: What to write; finite and complete, because no `ModelWeights` is anything else.
        path: Where; an existing file is replaced, and the folder is made if need be.

    Raises:
        OSError: If the file cannot be written.
    """
    write_whole(path, write_safetensors(weights.tensors, file_metadata(weights)))


def file_metadata(weights: ModelWeights) -> dict[str, str]:
    """What a file of weights says about itself, whatever its format: all that the tensors do not tell.

    Args:
        weights: What the file holds.

    Returns:
        Text by key: the format version, the network, pixel mean, channel order, anchors, and whatever
        `weights.metadata` holds, such as licence and provenance.
    """
    config = weights.config
    return {
        **weights.metadata,
        _FORMAT_KEY: str(FORMAT_VERSION),
        _CONFIG_KEY: json.dumps(config.to_dict(), sort_keys=True),
        # For other programs and for people; this package reads the config.
        "anchors": json.dumps(config.to_dict()["anchors"], sort_keys=True),
        "channel_order": "bgr",
        "mean_bgr": json.dumps(list(config.mean_bgr)),
        "variances": json.dumps(list(config.variances)),
        "batch_norm": "folded",
    }


def bundled_path() -> Path | None:
    """Path of the weights that travel inside the package, or None if this build has none."""
    from retinaface_fast import weights

    return _find_bundled(weights.__path__)


def _find_bundled(folders: Iterable[str]) -> Path | None:
    # An editable install has two folders: the checkout, and site-packages, where the build put its own files.
    for folder in folders:
        path = Path(folder, "bundled", _BUNDLED_FILE)
        if path.is_file():
            return path
    return None


def _load_published(name: str, config: RetinaFaceConfig | None) -> ModelWeights:
    entry = REGISTRY[name]
    config = config or CONFIGS[entry.config_name]
    if name == _BUNDLED_NAME:
        bundled = bundled_path()
        if bundled is not None:
            return _load_file(bundled, config)
    from .downloads import download

    path = download(name)
    weights = _load_file(path, config)
    if weights.sha256 != entry.sha256:
        raise WeightsError(f"{path} changed while it was read: its sha256 is {weights.sha256}")
    return assemble(
        weights.tensors,
        weights.config,
        {**weights.metadata, "name": name, "licence": entry.licence, "upstream_url": entry.url},
        weights.source,
        weights.sha256,
    )


def _load_file(path: Path, config: RetinaFaceConfig | None) -> ModelWeights:
    file = read_file(path)
    translated, metadata = file.translated(config)
    return make_weights(
        translated.tensors,
        translated.config,
        metadata=metadata,
        source=file.source,
        sha256=file.sha256,
        foreign_names=translated.foreign_names,
    )


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """What a file of weights holds, before it is known what network that is.

    Attributes:
        tensors: By the names in the file; of an ONNX file, which has no such names, none.
        metadata: What the file says about itself.
        source: Path of the file.
        sha256: Digest of the file, hexadecimal.
        onnx: The graph of an ONNX file; None for every other.
    """

    tensors: Mapping[str, AnyArray]
    metadata: Mapping[str, str]
    source: str
    sha256: str
    onnx: Graph | None = None

    def translated(self, config: RetinaFaceConfig | None) -> tuple[TranslatedTensors, dict[str, str]]:
        """The tensors under canonical names, batch norm folded or not as the file has it, and the metadata.

        Args:
            config: The network that the weights must fit, or None to find it.

        Raises:
            WeightsError: If the tensors fit no network, or not that one.
        """
        from .state_dict import TranslatedTensors, translate_state_dict

        metadata = dict(self.metadata)
        if _FORMAT_KEY in metadata:
            stored = _stored_config(metadata, self.source)
            if config is not None:
                _expect_same(stored, config, self.source)
            if metadata.get(_LAYOUT_KEY) == "pixels":
                raise WeightsError(
                    f"{self.source} was exported with the layout 'pixels', for ONNX Runtime alone; export "
                    "the weights with 'family', or as .safetensors"
                )
            config = stored
            metadata = {key: value for key, value in metadata.items() if key not in _FILE_KEYS}
            if self.onnx is None:
                return TranslatedTensors(dict(self.tensors), config, {}), metadata
        if self.onnx is not None:
            from .onnx_file import read_onnx

            return read_onnx(self.onnx, config=config, source=self.source), metadata
        return translate_state_dict(self.tensors, config=config, source=self.source), metadata


def _expect_same(stored: RetinaFaceConfig, config: RetinaFaceConfig, source: str) -> None:
    """Raise WeightsError unless two networks have one structure; the name is a label."""
    wanted = config.to_dict()
    differing = [key for key, value in stored.to_dict().items() if key != "name" and value != wanted[key]]
    if differing:
        raise WeightsError(
            f"{source} holds the network {stored.name!r}, not {config.name!r}: they differ in "
            f"{', '.join(differing)}"
        )


def read_file(path: Path) -> WeightsFile:
    """Read a file of weights without asking what network it is for.

    Args:
        path: A file of one of the formats that `load_weights` reads.

    Raises:
        WeightsError: If the file is missing, a folder, damaged, of an unknown format, or a pickle that holds
            more than tensors.
        MissingDependencyError: If an ONNX file is read and `onnx` is not installed, or a torch state dict and
            `torch` is not.
    """
    source = str(path)
    if path.is_dir():
        raise WeightsError(f"{source} is a folder, expected a file of weights ({', '.join(_SUFFIXES)})")
    if path.suffix not in _SUFFIXES:
        raise WeightsError(
            f"{source}: the format {path.suffix!r} is unknown; known are {', '.join(_SUFFIXES)}"
        )
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"{source} does not exist") from error
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(data, source=source)
        return WeightsFile(tensors, metadata, source, digest)
    metadata = {"upstream_file": path.name, "upstream_sha256": digest}
    if path.suffix == ".onnx":
        from .onnx_file import open_onnx

        graph, said = open_onnx(data, source=source)
        # Our own export carries licence and provenance on; what others write there is not known.
        return WeightsFile({}, said if _FORMAT_KEY in said else metadata, source, digest, onnx=graph)
    from .torch_file import read_torch

    return WeightsFile(read_torch(data, source=source), metadata, source, digest)


def _stored_config(metadata: Mapping[str, str], source: str) -> RetinaFaceConfig:
    version = metadata[_FORMAT_KEY]
    if version != str(FORMAT_VERSION):
        raise WeightsError(
            f"{source} has format version {version!r}, and this release reads {FORMAT_VERSION}"
        )
    try:
        return RetinaFaceConfig.from_dict(json.loads(metadata[_CONFIG_KEY]))
    except (KeyError, OverflowError, RecursionError, ValueError) as error:
        raise WeightsError(f"{source}: its metadata describes no network ({error})") from error
