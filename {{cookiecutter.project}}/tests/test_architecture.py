import ast
from pathlib import Path

import pytest

import {{ cookiecutter.package }} as project

ROOT = Path(project.__file__).parent
LAYERS = [
    {"errors", "fingerprints", "killed", "markup", "wording"},
    {"artifacts", "settings", "database", "entities", "events", "profile", "store"},
    {"contract", "delimited", "tracking", "ingestion", "export", "openapi", "checks"},
    {"encoding", "runs", "dispatch"},
    {"violations", "features", "graphs", "bootstrap", "columns", "compatibility"},
    {"plan", "preprocessing", "comparison", "registry"},
    {"bundle", "inspection", "data", "compilation"},
    {"inference", "outcome", "reference", "smoke", "feedback"},
    {"evaluation", "findings", "flavor", "packaging", "tables"},
    {"batch", "training", "plots", "gate"},
    {"search", "release"},
    {"report"},
    {"stages", "serving"},
    {"retrieval", "site", "monitoring", "labels", "relay"},
    {"summary", "probation", "collection"},
    {"retraining", "rounds"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


SERVING = [
    "artifacts",
    "checks",
    "entities",
    "errors",
    "settings",
    "contract",
    "dispatch",
    "encoding",
    "events",
    "features",
    "plan",
    "bundle",
    "inference",
    "compatibility",
    "tracking",
    "runs",
    "registry",
    "relay",
    "ingestion",
    "serving",
    "smoke",
    "store",
]
FOR_TRAINING = {
    "charset_normalizer",
    "matplotlib",
    "onnx",
    "pandas",
    "pyarrow",
    "skl2onnx",
    "sklearn",
    "skops",
    "tqdm",
}


def imported(path):
    """Names of this package's modules that a file imports, wherever in the file."""
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [a.name for a in node.names]


def libraries(path):
    """Names of the libraries that are imported together with a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def files(name):
    """The files of a module or package of this project."""
    return sorted((ROOT / name).rglob("*.py")) or [ROOT / f"{name}.py"]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path):
    """A module imports only modules of lower layers."""
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if name != "__init__":
        assert [] == [other for other in imported(path) if LEVEL[other] >= LEVEL[name]]


@pytest.mark.parametrize("name", SERVING)
def test_serving_is_light(name):
    """What serving loads needs no library that only training needs, as the image has none."""
    for path in files(name):
        assert set(SERVING) >= set(imported(path))
        assert set() == FOR_TRAINING & set(libraries(path))


def test_the_service_starts_before_its_model():
    """Importing the service loads nothing that runs models: its health can be asked at once."""
    assert set() == {"onnxruntime", "sklearn", "skops"} & {
        library for path in files("serving") for library in libraries(path)
    }
