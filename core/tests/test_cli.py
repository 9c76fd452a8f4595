"""The command line: one module a command, and one sentence an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inference_models.registry import build

from .distributions import install, others, output, python
from .fakes import backend, plugin
from .server import Server

RUN = "from inference_models.cli import main; main()"


def cli(*arguments, site, **environment):
    """Run the command line in a process of its own."""
    code = f"import sys; sys.argv[1:] = {list(arguments)!r}; {RUN}"
    return python(code, site, **environment)


@pytest.fixture
def typer():
    return pytest.importorskip("typer")


def test_doctor_shows_machine_plugins_backends_and_cache(typer, acme_site, tmp_path):
    cache = str(tmp_path / "mine")
    ended = cli("doctor", site=acme_site, INFERENCE_MODELS_CACHE=cache)

    assert ended.returncode == 0, ended.stderr
    for line in (
        "plugin    acme (acme-vision 1.0)",
        "plugin    core (inference-models-core ",
        "backend   acme: cpu",
        "models    3 known ids",
        f"cache     {cache}, network allowed",
    ):
        assert line in ended.stdout
    assert ended.stdout.startswith("python    3.")


def test_what_a_code_page_lacks_is_escaped(typer, acme_site, tmp_path):
    cache = tmp_path / "犬"
    ended = cli(
        "doctor",
        site=acme_site,
        INFERENCE_MODELS_CACHE=str(cache),
        PYTHONIOENCODING="cp1252",
    )

    assert ended.returncode == 0, ended.stderr
    assert r"\u72ac" in ended.stdout


def test_doctor_shows_the_better_backend_first(typer, acme_site):
    shown = cli("doctor", site=acme_site).stdout

    assert shown.index("backend   acme:") < shown.index("backend   acme-spare:")


def test_doctor_says_that_the_network_is_off(typer, acme_site):
    shown = cli("doctor", site=acme_site, INFERENCE_MODELS_OFFLINE="1").stdout

    assert "network switched off" in shown


def test_doctor_shows_the_rest_where_no_cache_can_be(typer, acme_site):
    ended = cli("doctor", site=acme_site, INFERENCE_MODELS_CACHE="~nobody-here/cache")

    assert ended.returncode == 0, ended.stderr
    assert "backend   acme: cpu" in ended.stdout
    assert "cache     nowhere (the cache has no place" in ended.stdout


def test_doctor_says_what_to_install_where_there_is_no_backend(typer, tmp_path):
    shown = cli("doctor", site=tmp_path).stdout

    assert "backend   none; `explain ID` says what to install" in shown


def advising(*sentences):
    return lambda self: sentences


def fails(self):
    raise OSError("no such file")


@pytest.fixture
def advice(typer, monkeypatch, capsys):
    """The lines of advice that doctor prints where these backends are installed."""
    from inference_models.cli import doctor

    def shown(*classes):
        found = build([plugin("acme", *classes)])
        monkeypatch.setattr(doctor, "installed", lambda: found)
        doctor.command()
        lines = capsys.readouterr().out.splitlines()
        return [line for line in lines if line.startswith("advice ")]

    return shown


def test_doctor_shows_each_advice_once_by_rank(advice):
    last = backend("a", rank=1, advice=advising("buy beads", "buy wires"))
    first = backend("b", rank=2, advice=advising("buy wires"))

    assert advice(last, first) == ["advice    buy wires", "advice    buy beads"]


def test_doctor_shows_that_advice_fails(advice):
    assert advice(backend("a", advice=fails)) == [
        "advice    a: advice() failed: OSError: no such file"
    ]


def test_doctor_asks_no_advice_of_what_cannot_be_made(advice):
    assert advice(backend("a", __init__=fails, advice=advising("buy beads"))) == []


def test_explain_shows_the_table(typer, acme_site):
    ended = cli("explain", "acme-colors", site=acme_site)

    assert ended.returncode == 0, ended.stderr
    assert "acme-colors: classification, acme-colors, licence MIT" in ended.stdout
    assert "->  acme" in ended.stdout


def test_explain_heeds_its_options(typer, acme_site):
    options = ["--backend", "acme-spare", "--device", "cpu", "--quantization", "fp32"]
    ended = cli("explain", "acme-colors", *options, site=acme_site)

    assert "->  acme-spare" in ended.stdout


def test_explain_fails_where_nothing_runs(typer, acme_site):
    ended = cli("explain", "acme-colors", "--device", "cuda", site=acme_site)

    assert ended.returncode == 1
    assert "nothing here can run it" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["explain", "acme-color"],
            "ModelNotFound: no model 'acme-color' is known; did you mean 'acme-col",
        ),
        (
            ["explain", "acme-colors", "--quantization", "fp8"],
            "InvalidOption: quantization 'fp8' is not one of",
        ),
    ],
)
def test_an_error_is_one_sentence(typer, acme_site, arguments, sentence):
    ended = cli(*arguments, site=acme_site)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(sentence)
    assert "Traceback" not in ended.stderr


@pytest.fixture
def compilers(acme_site, tmp_path):
    """A folder in which acme-vision and acme-deriver are installed."""
    site = shutil.copytree(acme_site, tmp_path / "site")
    shutil.copy(Path(__file__).with_name("acme_deriver.py"), site)
    install(site, "acme-deriver", {"acme-deriver": "acme_deriver"})
    return site


COMPILE = ("compile", "acme-colors", "--backend", "acme-compiled")


def test_compile_builds_and_says_where_it_lies(typer, compilers, tmp_path):
    cache = tmp_path / "mine"
    sizes = ("--batch-size", "1,4,8", "--quantization", "fp16")
    ended = cli(*COMPILE, *sizes, site=compilers, INFERENCE_MODELS_CACHE=str(cache))
    (folder,) = (cache / "derived").iterdir()
    manifest = json.loads((folder / "artifact.json").read_text("utf-8"))

    assert ended.stdout == f"acme-colors: acme-compiled, fp16: {folder}\n"
    assert manifest["artifact"]["batch"] == [1, 4, 8]


def test_compile_compares_on_the_pictures_that_are_given(typer, compilers, tmp_path):
    picture = str(tmp_path / "there is none.jpg")
    ended = cli(*COMPILE, "--calibration", picture, site=compilers)

    assert ended.returncode == 1
    assert picture in ended.stderr


def test_compile_refuses_what_is_no_size(typer, compilers):
    ended = cli(*COMPILE, "--batch-size", "1;4", site=compilers)

    assert ended.returncode == 1
    assert "--batch-size '1;4' is not a number, nor numbers such as" in ended.stderr


def test_bench_says_what_a_call_costs(typer, acme_site):
    ended = cli("bench", "acme-colors", "--batch", "2", "--rounds", "3", site=acme_site)
    first, second = ended.stdout.splitlines()

    assert first.startswith("acme-colors on acme, cpu, fp32; loaded in ")
    assert "ms a call of 2," in second


def test_bench_runs_the_network_in_the_batches_of_a_call(typer, acme, capsys):
    from inference_models.cli import bench

    bench.command("acme-colors", batch=20, rounds=1)

    assert "ms a call of 20," in capsys.readouterr().out
    assert acme.batches == [16, 4] * 8


def test_bench_refuses_a_call_of_more_pictures_than_fit_in_memory(typer, acme_site):
    ended = cli("bench", "acme-colors", "--batch", "1" + "0" * 20, site=acme_site)

    assert ended.returncode == 2
    assert "--batch" in ended.stderr


def test_bench_takes_pictures(typer, acme_site, tmp_path):
    picture = str(tmp_path / "there is none.jpg")
    ended = cli("bench", "acme-colors", "--image", picture, site=acme_site)

    assert ended.returncode == 1
    assert picture in ended.stderr


def test_bench_verifies_with_another_backend(typer, acme_site):
    ended = cli("bench", "acme-colors", "--rounds", "1", "--verify", site=acme_site)

    assert ended.returncode == 0
    assert ended.stdout.endswith(
        "agrees with acme-colors on acme-spare, cpu, fp32: 0 of the values, and 0.001 "
        "is allowed\n"
    )


def test_bench_fails_where_outputs_differ(typer, acme_site, tmp_path):
    site = shutil.copytree(acme_site, tmp_path / "site")
    path = site / "acme_vision.py"
    kept = "        self.sessions.append(session)\n"
    spoilt = "        session.gain = session.gain + (self.name == 'acme')\n"
    path.write_text(path.read_text("utf-8").replace(kept, spoilt + kept), "utf-8")
    ended = cli("bench", "acme-colors", "--rounds", "1", "--verify", site=site)

    assert ended.returncode == 1
    assert "DIFFERS from acme-colors on acme-spare, cpu, fp32: " in ended.stdout


def test_an_unknown_command_is_refused(typer, acme_site):
    ended = cli("docter", site=acme_site)

    assert ended.returncode == 2
    assert "docter" in ended.stderr


def test_models_lists_every_id(typer, acme_site):
    ended = cli("models", site=acme_site)

    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 3


def test_the_version_is_that_of_the_core(typer, acme_site):
    from importlib.metadata import version

    shown = cli("--version", site=acme_site).stdout

    assert shown.strip() == version("inference-models-core")


def test_help_has_a_short_name(typer, acme_site):
    assert "Show hardware, plugins" in cli("doctor", "-h", site=acme_site).stdout
    assert "doctor" in cli("-h", site=acme_site).stdout


def test_without_arguments_the_commands_are_listed(typer, acme_site):
    ended = cli(site=acme_site)
    shown = ended.stdout + ended.stderr

    assert "doctor" in shown
    assert "explain" in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk")
@pytest.mark.parametrize("command", [["doctor"], ["cache", "ls"]], ids=str)
def test_what_cannot_be_shown_is_not_blamed_on_the_cache(typer, acme_site, command):
    code = f"import sys; sys.argv[1:] = {command}; sys.stdout = open('/dev/full', 'w')"
    ended = python(f"{code}; {RUN}", acme_site)

    assert ended.returncode > 0
    assert ended.stderr.splitlines()[0] == "OSError: [Errno 28] No space left on device"


def test_the_package_runs_as_the_command(typer, acme_site):
    code = 'import runpy; runpy.run_module("inference_models", alter_sys=True)'
    ended = python(f"import sys; sys.argv[1:] = ['doctor']; {code}", acme_site)

    assert ended.returncode == 0, ended.stderr
    assert "plugin    acme (acme-vision 1.0)" in ended.stdout


LOADED = f"""
    import json, sys
    sys.argv[1:] = [{{command!r}}, "--help"]
    try:
        {RUN.replace("; ", chr(10) + " " * 8)}
    except SystemExit:
        prefix = "inference_models.cli."
        print(json.dumps([n for n in sys.modules if n.startswith(prefix)]))
"""


@pytest.mark.parametrize("command", ["cache", "doctor", "explain"])
def test_only_the_called_commands_module_is_imported(typer, acme_site, command):
    shown = output(LOADED.format(command=command), acme_site).splitlines()[-1]

    assert set(json.loads(shown)) == {
        "inference_models.cli.app",
        f"inference_models.cli.{command}",
    }


def test_without_typer_it_says_what_to_install(acme_site):
    ended = python(f"import sys; sys.modules['typer'] = None; {RUN}", acme_site)

    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        'the command line needs typer; pip install "inference-models-core[cli]"'
    )


def test_it_runs_as_a_module(typer):
    command = [sys.executable, "-m", "inference_models.cli", "doctor"]
    environment = os.environ | {"INFERENCE_MODELS_DISABLED_PLUGINS": others()}
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)

    assert ended.returncode == 0
    assert ended.stdout.startswith(b"python    3.")


VAULT = """
    import hashlib
    import os

    from acme_vision import WEIGHTS, artifact, card
    from inference_models import File, Unauthorized, WeightsProvider, hookimpl

    CONTENT = WEIGHTS.read_bytes()


    class Vault(WeightsProvider):
        name, takes_key, takes_revision = "vault", True, True

        def find(self, model_id, access):
            if model_id != "colors":
                return None
            if (access.key, access.revision) != ("sesame", "2"):
                raise Unauthorized(f"{access.revision} of the vault wants a key")
            digest = hashlib.sha256(CONTENT).hexdigest()
            file = File(WEIGHTS.name, ("vault://2",), len(CONTENT), digest)
            return card(id="colors", artifacts=(artifact(files=(file,)),))

        def request(self, source, access):
            return os.environ["VAULT"], {"x-key": access.key}


    @hookimpl
    def weights_providers():
        return [Vault]
"""


@pytest.fixture
def vault(compilers, tmp_path):
    """Runs a command where a private model's provider is installed."""
    install(compilers, "acme-vault", {"vault": "vault"}, vault=VAULT)
    content = (compilers / "acme_weights.json").read_bytes()
    with Server() as server:
        server.gives("/weights", content)

        def run(*arguments, **environment):
            cache = str(tmp_path / "cache")
            named = {"VAULT": server.url("/weights"), "INFERENCE_MODELS_CACHE": cache}
            return cli(*arguments, site=compilers, **named | environment)

        yield run


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "vault://colors"),
        ("download", "vault://colors"),
        ("bench", "vault://colors", "--rounds", "1", "--verify"),
        ("compile", "vault://colors", "--backend", "acme-compiled"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_private_model_takes_a_key_and_a_revision(typer, vault, arguments):
    without = vault(*arguments, "--revision", "2")
    typed = vault(*arguments, "--revision", "2", "--api-key", "sesame")
    kept = vault(*arguments, "--revision", "2", INFERENCE_MODELS_API_KEY="sesame")

    assert without.stderr == "Unauthorized: 2 of the vault wants a key\n"
    assert (typed.returncode, kept.returncode) == (0, 0), typed.stderr + kept.stderr
    assert "sesame" not in typed.stdout + typed.stderr + kept.stdout + kept.stderr


def test_a_private_model_is_exported(typer, vault, tmp_path):
    named = ("vault://colors", "--revision", "2", "--api-key", "sesame")
    vault("download", *named)
    ended = vault("cache", "export", str(tmp_path / "models.tar"), *named)

    assert ended.stdout.startswith("wrote ")
    assert (tmp_path / "models.tar").is_file()


def test_help_names_the_variable_and_never_the_key(typer, vault):
    shown = vault("explain", "--help", INFERENCE_MODELS_API_KEY="sesame").stdout

    assert "INFERENCE_MODELS_API_KEY" in shown
    assert "sesame" not in shown
