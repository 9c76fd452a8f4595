"""Broken plugins, really installed, in an interpreter of their own."""

from __future__ import annotations

import json

import pytest

from .distributions import install, output, python

SOUND = """
    from inference_models import Backend, hookimpl

    class Sound(Backend):
        name, formats, rank = "{name}", ("acme",), {rank}

        def devices(self):
            return ["cpu"]

        def open(self, bundle, architecture, plan):
            return {{}}

    @hookimpl
    def backends():
        return [Sound]
"""

BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits": ("import sys; sys.exit('goodbye')", "SystemExit: goodbye"),
    "syntax": ("def (:", "SyntaxError: invalid syntax"),
    "needs": ("import no_such_runtime", "No module named 'no_such_runtime'"),
    "misspells": (
        "from inference_models import hookimpl\n@hookimpl\ndef backend(): return []",
        "unknown hook 'backend'",
    ),
    "argument": (
        "from inference_models import hookimpl\n@hookimpl\ndef backends(x): return []",
        "Argument(s) {'x'} are declared in the hookimpl but can not be found",
    ),
    "empty": ("", "implements none of the hooks"),
    "returns": (
        "from inference_models import hookimpl\n@hookimpl\ndef backends(): return 'a'",
        "backends() returned 'a', not a list of classes",
    ),
    "fails": (
        "from inference_models import hookimpl\n@hookimpl\ndef backends(): 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "abstract": (
        """
        from inference_models import Backend, hookimpl
        class Half(Backend):
            name, formats = "half", ("half",)
        @hookimpl
        def backends():
            return [Half]
        """,
        "Half does not implement devices, open",
    ),
    "newer": ("inference_models_api = 2", "made for plugin API 2, and this is 1"),
}

REPORT = """
    import json
    from inference_models import registry
    found = registry.installed()
    aside = {plugin.name: plugin.reason for plugin in found.set_aside}
    print(json.dumps({"backends": list(found.backends), "aside": aside}))
"""


def sound(name="sound", rank=1):
    return SOUND.format(name=name, rank=rank)


@pytest.fixture(scope="module")
def broken_site(tmp_path_factory):
    """All the broken plugins, one without its module, and a sound one between them."""
    site = tmp_path_factory.mktemp("broken")
    for name, (source, _) in BROKEN.items():
        install(site, f"plugin-{name}", {name: f"im_{name}"}, **{f"im_{name}": source})
    install(site, "plugin-missing", {"missing": "im_missing"})
    install(site, "plugin-object", {"object": "im_sound:absent"})
    install(site, "plugin-sound", {"sound": "im_sound"}, im_sound=sound())
    return site


@pytest.fixture(scope="module")
def report(broken_site):
    return json.loads(output(REPORT, broken_site))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_set_aside_with_its_reason(name, report):
    assert BROKEN[name][1] in report["aside"][name]


def test_a_plugin_whose_module_is_gone_is_set_aside(report):
    assert "No module named 'im_missing'" in report["aside"]["missing"]


def test_a_plugin_whose_object_is_gone_is_set_aside(report):
    assert "has no attribute 'absent'" in report["aside"]["object"]


def test_the_sound_plugin_works_beside_broken_ones(report):
    assert report["backends"] == ["sound"]


EXPLAIN = """
    from inference_models import AutoModel
    print(AutoModel.explain("acme-colors"))
"""


def test_explain_shows_what_is_set_aside(broken_site, acme_site):
    table = output(EXPLAIN, broken_site, acme_site)

    assert "-> " in table
    assert (
        "plugin set aside: raises (plugin-raises): ZeroDivisionError: division by zero"
    ) in table


def test_a_model_runs_beside_broken_plugins(broken_site, acme_site):
    assert output(PREDICT, broken_site, acme_site) == "red"


PREDICT = """
    import numpy
    from inference_models import AutoModel
    model = AutoModel.from_pretrained("acme-colors")
    image = numpy.zeros((9, 9, 3), numpy.uint8)
    image[:, :, 2] = 255
    print(model.class_names[model(image).class_id[0]])
"""


def test_an_unknown_model_may_be_that_of_a_broken_plugin(broken_site):
    complaint = python(PREDICT, broken_site).stderr

    assert "ModelNotFound: no model 'acme-colors' is known" in complaint
    assert "plugin set aside: exits (plugin-exits): SystemExit: goodbye" in complaint


DOCTOR = """
    import sys
    from inference_models.cli import main
    sys.argv[1:] = ["doctor"]
    main()
"""


def test_doctor_shows_what_is_set_aside(broken_site):
    pytest.importorskip("typer")
    shown = output(DOCTOR, broken_site)

    for name, (_, reason) in BROKEN.items():
        assert f"set aside {name} (plugin-{name}): " in shown
        assert reason in shown
    assert "backend   sound: cpu" in shown


WINNER = """
    from inference_models import registry
    found = registry.installed()
    losers = [p.distribution for p in found.set_aside if "is taken by" in p.reason]
    print(found.backends["shared"].rank, *losers)
"""


def install_double(site, distribution, rank, module):
    source = sound("shared", rank)
    install(site, distribution, {"shared": module}, **{module: source})


@pytest.mark.parametrize("reverse", [False, True])
def test_order_of_installation_does_not_matter(tmp_path, reverse):
    sites = [tmp_path / "a", tmp_path / "b"]
    install_double(sites[0], "zebra", 1, "im_zebra")
    install_double(sites[1], "aardvark", 2, "im_aardvark")

    assert output(WINNER, *sites[:: -1 if reverse else 1]) == "2 zebra"


def test_the_first_party_distribution_wins_its_name(tmp_path):
    install_double(tmp_path, "aardvark", 1, "im_aardvark")
    install_double(tmp_path, "inference-models-shared", 2, "im_shared")

    assert output(WINNER, tmp_path) == "2 aardvark"


def test_disabling_the_winner_reverses_it(tmp_path):
    install_double(tmp_path, "aardvark", 1, "im_aardvark")
    install_double(tmp_path, "inference-models-shared", 2, "im_shared")
    disabled = {"INFERENCE_MODELS_DISABLED_PLUGINS": "inference_models_shared"}

    assert output(WINNER, tmp_path, **disabled) == "1"


def test_one_distribution_on_two_paths_is_the_first_one(tmp_path):
    sites = [tmp_path / "a", tmp_path / "b"]
    install_double(sites[0], "acme", 1, "im_one")
    install_double(sites[1], "acme", 2, "im_two")

    assert output(WINNER, *sites) == "1"


def test_a_cut_short_installation_leaves_the_others_alone(tmp_path):
    install(tmp_path, "plugin-sound", {"sound": "im_sound"}, im_sound=sound())
    torn = install(tmp_path, "plugin-torn", {"torn": "im_torn"})
    (torn / "METADATA").unlink()
    report = json.loads(output(REPORT, tmp_path))

    assert report["backends"] == ["sound"]
    assert "No module named 'im_torn'" in report["aside"]["torn"]


def test_damaged_entry_points_leave_the_others_alone(tmp_path):
    install(tmp_path, "plugin-sound", {"sound": "im_sound"}, im_sound=sound())
    damaged = install(tmp_path, "plugin-damaged", {})
    (damaged / "entry_points.txt").write_text("[inference_models]\nno sign of equality")
    ended = python(REPORT, tmp_path)

    assert json.loads(ended.stdout)["backends"] == ["sound"]
    assert "the entry points of an installed package are damaged" in ended.stderr
