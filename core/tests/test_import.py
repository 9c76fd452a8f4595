"""What importing costs: nothing that is not needed, and no trace."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import pytest

import inference_models

from .distributions import output

HEAVY = [
    "PIL",
    "cv2",
    "httpx",
    "huggingface_hub",
    "onnx",
    "onnxruntime",
    "pluggy",
    "scipy",
    "skimage",
    "supervision",
    "torch",
    "torchvision",
    "transformers",
    "typer",
]

LOADED = f"""
    import json, os, sys
    before = dict(os.environ)
    {{code}}
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    plugin = [name for name in sys.modules if name.startswith("acme")]
    changed = dict(os.environ) != before
    print(json.dumps([heavy, plugin, changed]))
"""


def loaded(code, *paths):
    """Heavy modules and plugins that code imports, and whether it sets variables."""
    return json.loads(output(LOADED.format(code=code), *paths))


def test_importing_loads_no_runtime_and_no_plugin(acme_site):
    assert loaded("import inference_models", acme_site) == [[], [], False]


def test_importing_the_model_class_loads_no_runtime_and_no_plugin(acme_site):
    heavy, plugins, changed = loaded(
        "from inference_models import AutoModel", acme_site
    )

    assert set(heavy) <= {"pluggy"}
    assert (plugins, changed) == ([], False)


@pytest.mark.parametrize(
    "code",
    [
        "inference_models.AutoModel.explain('acme-colors')",
        "inference_models.AutoModel.models()",
        "inference_models.hardware.detect()",
    ],
)
def test_asking_what_would_run_loads_no_runtime(acme_site, code):
    importing = "import inference_models, inference_models.hardware"
    heavy, _, changed = loaded(f"{importing}; {code}", acme_site)

    assert set(heavy) <= {"pluggy"}
    assert not changed


def test_a_model_of_arrays_needs_no_decoder_and_no_network(acme_site):
    code = (
        "import numpy; from inference_models import AutoModel; "
        "AutoModel.from_pretrained('acme-colors')(numpy.zeros((16, 16, 3), 'uint8'))"
    )
    heavy, _, changed = loaded(code, acme_site)

    assert set(heavy) <= {"pluggy"}
    assert not changed


@pytest.mark.parametrize("name", inference_models.__all__)
def test_every_public_name_can_be_imported(name):
    home = importlib.import_module(f"inference_models.{inference_models._HOMES[name]}")

    assert getattr(inference_models, name) is getattr(home, name)


def exported():
    """Public names and their modules, as type checkers read them."""
    tree = ast.parse(Path(inference_models.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.name: node.module.partition(".")[2]
        for node in block.body
        for alias in node.names
    }


def test_type_checkers_and_python_see_the_same_names():
    assert exported() == inference_models._HOMES
    assert inference_models.__all__ == sorted(exported())


def test_every_public_name_is_listed():
    assert set(inference_models.__all__) <= set(dir(inference_models))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'AutoModle'"):
        inference_models.AutoModle  # noqa: B018


def test_the_package_is_typed():
    assert Path(inference_models.__file__).with_name("py.typed").is_file()
