from __future__ import annotations

import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch

from retinaface_fast.errors import WeightsError
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "inside"])
def test_a_malicious_pickle_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "checkpoint.pth"
    evil = Malicious(trace)
    if form == "pickle":
        path.write_bytes(pickle.dumps(evil))
    elif form == "inside":
        torch.save({"fpn.merge1.0.weight": torch.zeros(1), "z": [evil]}, path)
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        WeightsError, match=r"cannot be read safely|is not a checkpoint that can be read safely"
    ):
        load_weights(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(evil))
    assert trace.exists(), "the pickle would not have done anything, so the test proves nothing"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02]q\x00."])
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"checkpoint.pth"):
        load_weights(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"fpn.merge1.0.weight": torch.zeros(64, 64, 3, 3)}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"checkpoint.pth"):
        load_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list instead of a state dict"),
        (torch.zeros(1), "holds a Tensor instead of a state dict"),
        ({"a": 1}, "'a' is a int instead of a tensor"),
        ({1: torch.zeros(1)}, "1 is a Tensor instead of a tensor|1 is"),
    ],
)
def test_other_content(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        load_weights(path)


def test_an_unsafe_torch_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({}, path)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(WeightsError, match="CVE-2025-32434"):
        load_weights(path)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_tensors_are_refused(layout: str, tmp_path: Path) -> None:
    # torch does not look whether the indices of a file lie within the tensor, and writes where they say.
    if layout == "coo":
        indices = torch.tensor([[1 << 30, 1, 2]])
        sparse = torch.sparse_coo_tensor(indices, torch.ones(3), (3,), check_invariants=False)
    else:
        columns = torch.tensor([0, 1 << 30])
        sparse = torch.sparse_csr_tensor(
            torch.tensor([0, 2]), columns, torch.ones(2), (1, 3), check_invariants=False
        )
    path = tmp_path / "checkpoint.pth"
    torch.save({"fpn.merge1.0.weight": sparse}, path)
    with pytest.raises(WeightsError, match=r"fpn\.merge1\.0\.weight is .*sparse"):
        load_weights(path)


def test_tensors_that_are_larger_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"fpn.merge1.0.weight": torch.zeros(1).expand(1 << 38)}, path)
    with pytest.raises(WeightsError, match=r"more numbers than the file holds"):
        load_weights(path)


def test_a_deflated_archive(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    packed = tmp_path / "packed.pth"
    torch.save({"fpn.merge1.0.weight": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    assert packed.stat().st_size < 20_000
    with pytest.raises(WeightsError, match=r"packed\.pth.*archive is compressed"):
        load_weights(packed)
