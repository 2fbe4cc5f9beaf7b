"""The public names, so that none comes or goes unnoticed: whoever changes this file changes the API."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest

import retinaface_fast
from retinaface_fast import TTA, Detections, Face, FaceDetector
from retinaface_fast.ops.cuda import DeviceFaces

PUBLIC = {
    "retinaface_fast": [
        "DatasetError",
        "Detections",
        "EngineError",
        "Face",
        "FaceDetector",
        "ImageError",
        "MissingDependencyError",
        "RetinaFaceError",
        "TTA",
        "WeightsError",
        "__version__",
        "detect",
        "ops",
    ],
    "retinaface_fast.align": ["align_faces", "arcface_template", "estimate_similarity"],
    "retinaface_fast.anchor_config": ["AnchorConfig", "P2_P6", "P3_P5"],
    "retinaface_fast.compare": [
        "ComparedPicture",
        "Contestant",
        "DLIB_MODELS",
        "Detector",
        "DlibDetector",
        "DlibModel",
        "FaceEmbedder",
        "FacePairs",
        "GROUPING_DISTANCE",
        "SAME_PERSON_DISTANCE",
        "Search",
        "can_be_embedded",
        "compare_picture",
        "embedding_crops",
        "embedding_distance",
        "embedding_distances",
        "find_dlib_model",
        "group_faces",
        "pair_faces",
        "render_report",
        "summarize_comparison",
        "warm_up",
    ],
    "retinaface_fast.data": [
        "ATTRIBUTES",
        "Annotation",
        "GroundTruth",
        "Prediction",
        "SUBSETS",
        "read_annotations",
        "read_attributes",
        "read_coco",
        "read_ground_truth",
        "read_labels",
        "read_names",
        "read_prediction",
        "read_predictions",
        "write_prediction",
    ],
    "retinaface_fast.detections": ["Detections", "Face", "LANDMARK_NAMES"],
    "retinaface_fast.detector": ["DEFAULT_MODEL", "FaceDetector", "detect"],
    "retinaface_fast.draw": ["draw_faces"],
    "retinaface_fast.engines": [
        "DetectingEngine",
        "ENGINES",
        "Engine",
        "ExportCheck",
        "RawOutputs",
        "available_engines",
        "create_engine",
        "export_onnx",
    ],
    "retinaface_fast.errors": [
        "DatasetError",
        "EngineError",
        "ImageError",
        "MissingDependencyError",
        "RetinaFaceError",
        "WeightsError",
    ],
    "retinaface_fast.evaluation": [
        "CocoScores",
        "ContactSheet",
        "Curve",
        "DetectionRun",
        "Failure",
        "PROTOCOLS",
        "Protocol",
        "RunProgress",
        "RunSummary",
        "Scores",
        "build_report",
        "claim_folder",
        "coco_average_precision",
        "evaluate",
        "heights_to_table",
        "match_boxes",
        "plot_curves",
        "report_to_markdown",
        "reports_to_table",
        "sheet_of_false_positives",
        "sheet_of_misses",
        "voc_average_precision",
    ],
    "retinaface_fast.geometry": ["Geometry"],
    "retinaface_fast.image": ["DEFAULT_MAX_PIXELS", "ImageSource", "LoadedImage", "read_image"],
    "retinaface_fast.latency": [
        "LatencyBenchmark",
        "LatencyPlan",
        "LatencyProgress",
        "PAPER_SIZES",
        "PARTS",
        "PLOT_SUFFIXES",
        "ROWS",
        "Row",
        "Table",
        "has_failed",
        "machine_lines",
        "main_tables",
        "notes",
        "plot_latency",
        "report_to_markdown",
    ],
    "retinaface_fast.network": [
        "BackboneConfig",
        "CONFIGS",
        "ContextConfig",
        "LayerSpec",
        "NetworkOutputs",
        "RetinaFace",
        "RetinaFaceConfig",
        "fold_batch_norm",
        "layer_specs",
        "tensor_shapes",
    ],
    "retinaface_fast.ops": [
        "AnchorConfig",
        "Faces",
        "P2_P6",
        "P3_P5",
        "Votes",
        "box_iou",
        "clip_boxes",
        "decode_boxes",
        "decode_landmarks",
        "encode_boxes",
        "encode_landmarks",
        "generate_anchors",
        "nms",
        "postprocess",
        "simd_level",
        "simd_levels",
        "vote_boxes",
    ],
    "retinaface_fast.ops.cuda": ["DeviceFaces", "architectures", "is_built", "obstacle", "postprocess"],
    "retinaface_fast.training": [
        "DataReport",
        "LossTerms",
        "MultiTaskLoss",
        "Recipe",
        "Record",
        "RecordSet",
        "Shares",
        "Trainer",
        "TrainingProgress",
        "TrainingResult",
        "Validator",
        "check_data",
        "fill_landmarks",
        "load_recipe",
        "plot_run",
        "read_records",
        "recipe_names",
        "records_validator",
        "report_lines",
        "widerface_validator",
    ],
    "retinaface_fast.tta": ["TTA", "View"],
    "retinaface_fast.weights": [
        "ModelWeights",
        "Progress",
        "REGISTRY",
        "RegistryEntry",
        "bundled_path",
        "cache_dir",
        "download",
        "is_offline",
        "load_weights",
        "save_weights",
    ],
}

#: Modules within a package that are public themselves: they are imported only where they are asked for.
SUBMODULES = {"retinaface_fast.ops.cuda"}

#: Run, not imported.
PROGRAMS = {"retinaface_fast.__main__", "retinaface_fast.cli"}

MEMBERS = {
    Face: ["box", "center", "height", "landmarks", "score", "to_dict", "width"],
    Detections: [
        "align",
        "boxes",
        "clip",
        "crop",
        "device",
        "draw",
        "engine",
        "from_dict",
        "image_size",
        "landmarks",
        "scores",
        "timings",
        "to_dict",
        "to_json",
        "to_supervision",
    ],
    DeviceFaces: ["batch_size", "capacity", "device", "offsets", "rows", "stream", "to_host"],
    FaceDetector: [
        "close_ups",
        "detect",
        "detect_batch",
        "device",
        "engine",
        "keep_top_k",
        "max_pixels",
        "max_side",
        "model",
        "nms_threshold",
        "postprocessing",
        "precision",
        "replace",
        "score_threshold",
        "threads",
        "tile_side",
        "top_k",
        "tta",
    ],
    TTA: [
        "agreement",
        "flip",
        "max_face_side",
        "max_long_side",
        "merge",
        "paper_compat",
        "short_sides",
        "views",
        "vote_threshold",
    ],
}

SETTINGS = {
    "score_threshold": 0.5,
    "nms_threshold": 0.4,
    "top_k": 5000,
    "keep_top_k": 750,
    "max_side": None,
    "max_pixels": None,
}
NETWORK = {
    "model": "mobilenet0.25",
    "weights": None,
    "engine": "auto",
    "device": None,
    "threads": None,
    "precision": None,
}
OVERRIDES = dict.fromkeys(SETTINGS)
PASSES = {"tta": None, "close_ups": True, "tile_side": None}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_names_of_a_module(module: str) -> None:
    loaded = import_module(module)
    names = getattr(loaded, "__all__", None)
    if names is None:
        names = [name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == module]
    assert sorted(names) == sorted(PUBLIC[module])
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(loaded, name) is not None
        assert name in dir(loaded)


def test_every_module_is_listed_or_private() -> None:
    found = {"retinaface_fast"}
    for module in pkgutil.iter_modules(retinaface_fast.__path__, "retinaface_fast."):
        if not module.name.rpartition(".")[2].startswith("_") or module.name in PROGRAMS:
            found.add(module.name)
    assert found - PROGRAMS == set(PUBLIC) - SUBMODULES


@pytest.mark.parametrize("kind", list(MEMBERS))
def test_members_of_a_class(kind: type) -> None:
    assert sorted(name for name in dir(kind) if not name.startswith("_")) == MEMBERS[kind]


@pytest.mark.parametrize(
    ("function", "positional", "keywords"),
    [
        (FaceDetector, {"model": "mobilenet0.25"}, {**NETWORK, **SETTINGS, **PASSES}),
        (FaceDetector.detect, {"image": inspect.Parameter.empty}, {"color": "bgr", **OVERRIDES}),
        (FaceDetector.detect_batch, {"images": inspect.Parameter.empty}, {"color": "bgr", **OVERRIDES}),
        (
            retinaface_fast.detect,
            {"image": inspect.Parameter.empty},
            {"color": "bgr", **NETWORK, **SETTINGS, **PASSES},
        ),
    ],
)
def test_parameters(function, positional: dict, keywords: dict) -> None:
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    expected = {**positional, **keywords}
    assert {name: parameter.default for name, parameter in parameters.items()} == expected
    for name, parameter in parameters.items():
        assert (parameter.kind is parameter.KEYWORD_ONLY) == (name not in positional), name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'detekt'"):
        _ = retinaface_fast.detekt


def test_errors_are_one_tree() -> None:
    for name in PUBLIC["retinaface_fast.errors"]:
        assert issubclass(getattr(retinaface_fast, name), retinaface_fast.RetinaFaceError)
    assert issubclass(retinaface_fast.MissingDependencyError, ImportError)
    assert not issubclass(retinaface_fast.RetinaFaceError, ValueError)


def test_missing_dependency_error_survives_pickling() -> None:
    import pickle

    from retinaface_fast import MissingDependencyError

    for error in (
        MissingDependencyError("typer", purpose="the command line", extra="cli"),
        MissingDependencyError("OpenCV", purpose="drawing", advice="install opencv-python"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert (copy.package, copy.extra) == (error.package, error.extra)
        assert isinstance(copy, ImportError)
