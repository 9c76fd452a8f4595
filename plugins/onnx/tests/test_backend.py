from __future__ import annotations

import os
import pickle
import subprocess
import sys

import attrs
import onnx.parser
import pytest

from inference_models import (
    Artifact,
    InvalidOption,
    ModelCard,
    Plan,
    Unavailable,
    hardware,
)
from inference_models_onnx import OnnxBackend, backends

CUDA = "CUDAExecutionProvider"


def refusal(device="cpu", wanted="fp32", **artifact):
    one = Artifact("onnx", {"main": "model.onnx"}, **artifact)
    card = ModelCard("test", "test", "test", (one,))
    return OnnxBackend().refuse(card, one, Plan(device, wanted))


def run_python(code, env=None):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return done.stdout


def test_the_hook_offers_the_backend():
    assert backends() == [OnnxBackend]
    assert OnnxBackend.name == "onnx"
    assert OnnxBackend.formats == ("onnx",)


def test_no_runtime_is_imported_before_a_model_is_opened(save):
    path = save(
        "graph (float[N, 3] input) => (float[N, 3] output) { output = Relu(input) }"
    )
    code = (
        "import pathlib, sys\n"
        "import inference_models_onnx\n"
        "backend = inference_models_onnx.backends()[0]()\n"
        "devices = backend.devices()\n"
        f"facts = backend.inspect(pathlib.Path({str(path)!r}))\n"
        "print(devices[-1], 'onnxruntime' in sys.modules, facts.format)\n"
    )

    assert run_python(code) == "cpu False onnx\n"


def test_onnx_runtime_gives_the_machine_no_id(save, tmp_path, monkeypatch):
    path = save(
        "graph (float[N, 3] input) => (float[N, 3] output) { output = Relu(input) }"
    )
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    code = (
        "import pathlib\n"
        "from inference_models import Artifact, Bundle, ModelCard, Plan\n"
        "from inference_models_onnx import OnnxBackend\n"
        "artifact = Artifact('onnx', {'main': 'model.onnx'})\n"
        "card = ModelCard('test', 'test', 'test', (artifact,))\n"
        f"bundle = Bundle(card, artifact, pathlib.Path({str(path.parent)!r}))\n"
        "OnnxBackend().open(bundle, None, Plan('cpu', 'fp32'))\n"
    )
    run_python(code, {**os.environ, "HOME": str(tmp_path / "home")})

    assert list((tmp_path / "home").rglob("*")) == []


def test_settings_survive_pickling():
    providers = [(CUDA, {"device_id": 1}), "CPUExecutionProvider"]
    backend = OnnxBackend(providers=providers, threads=3, spinning=False)
    graphs = OnnxBackend(cuda_graph=True)

    assert pickle.loads(pickle.dumps(graphs)) == graphs
    assert pickle.loads(pickle.dumps(backend)) == backend


@pytest.mark.parametrize("providers", [[], "CPUExecutionProvider", [3], [("a", "b")]])
def test_providers_that_are_none_are_refused(providers):
    with pytest.raises(InvalidOption, match="provider"):
        OnnxBackend(providers=providers)


def test_providers_and_cuda_graph_do_not_both_speak():
    with pytest.raises(InvalidOption, match="give one of cuda_graph and providers"):
        OnnxBackend(providers=[CUDA], cuda_graph=True)


def test_a_provider_that_would_replay_old_inputs_is_refused():
    with pytest.raises(InvalidOption, match="would replay old inputs; give cuda_graph"):
        OnnxBackend(providers=[(CUDA, {"enable_cuda_graph": "1"})])


def test_a_cuda_graph_needs_a_gpu():
    one = Artifact("onnx", {"main": "model.onnx"})
    card = ModelCard("test", "test", "test", (one,))
    reason = OnnxBackend(cuda_graph=True).refuse(card, one, Plan("cpu", "fp32"))

    assert reason == (
        "cuda_graph=True needs an NVIDIA GPU; choose device='cuda', or omit it"
    )


@pytest.fixture
def opened(monkeypatch, save, bundle):
    """How a session of a graph would be opened on the second GPU."""
    session = pytest.importorskip("inference_models_onnx.session")

    def opened(graph, **settings):
        backend, calls = OnnxBackend(**settings), []
        monkeypatch.setattr(session, "OnnxSession", lambda *a: calls.append(a))
        backend.open(bundle(save(graph)), None, Plan("cuda:1", "fp32"))
        (_, _, providers, _, captured), *_ = calls
        return dict(providers)[CUDA], captured

    return opened


PLAIN = "graph (float[N] x) => (float[N] y) { y = Relu(x) }"


def test_a_session_on_a_gpu_takes_no_more_memory_than_it_needs(opened):
    options, captured = opened(PLAIN)

    assert options == {"device_id": 1, "arena_extend_strategy": "kSameAsRequested"}
    assert not captured


def test_a_cuda_graph_is_asked_of_the_provider(opened):
    options, captured = opened(PLAIN, cuda_graph=True)

    assert options["enable_cuda_graph"] == "1"
    assert captured


@pytest.mark.parametrize(("before", "after"), [("x", "state.0"), ("y", "state.1")])
def test_a_graph_with_states_runs_without_a_cuda_graph(opened, before, after):
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {PLAIN}')
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.name = after if tensor.name == before else tensor.name
    options, captured = opened(model, cuda_graph=True)

    assert "enable_cuda_graph" not in options
    assert not captured


@pytest.mark.parametrize("threads", [0, 1.5, True, "2"], ids=repr)
def test_threads_must_be_a_number_above_zero(threads):
    with pytest.raises(InvalidOption, match=f"threads {threads!r} is not a whole n"):
        OnnxBackend(threads=threads)


def test_a_missing_runtime_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(Unavailable, match=r'pip install "inference-models-onnx\[cpu'):
        OnnxBackend().devices()


def test_a_runtime_that_was_left_without_its_files_says_what_to_type(
    tmp_path, monkeypatch
):
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)

    with pytest.raises(Unavailable, match="pip install --force-reinstall onnxruntime"):
        OnnxBackend().devices()


def test_a_runtime_too_old_says_what_to_type(fake_runtime):
    fake_runtime("onnxruntime", "1.20.3")

    with pytest.raises(Unavailable, match=r"1.20 is older than 1.21; pip install -U "):
        OnnxBackend().devices()


def test_a_cpu_build_offers_the_cpu_alone(fake_runtime, two_gpus):
    fake_runtime("onnxruntime", "1.31.1")

    assert OnnxBackend().devices() == ["cpu"]
    assert "has no code for NVIDIA GPUs" in refusal(device="cuda:0")


def test_a_gpu_build_without_a_gpu_offers_the_cpu_alone(fake_runtime):
    fake_runtime("onnxruntime_gpu", "1.26.0", cuda="12.8")

    assert OnnxBackend().devices() == ["cpu"]


def test_a_gpu_build_offers_every_gpu_before_the_cpu(fake_runtime, two_gpus):
    fake_runtime("onnxruntime_gpu", "1.26.0", cuda="12.8")

    assert OnnxBackend().devices() == ["cuda:0", "cuda:1", "cpu"]
    assert refusal(device="cuda:1") is None


def test_two_builds_installed_at_once_are_refused_with_the_command(
    fake_runtime, two_gpus
):
    fake_runtime("onnxruntime_gpu", "1.26.0", cuda="12.8")
    fake_runtime("onnxruntime", "1.31.1")

    assert refusal(device="cpu") is None
    assert (
        "pip uninstall -y onnxruntime onnxruntime-gpu, then "
        'pip install "inference-models-onnx[cu12]"'
    ) in refusal(device="cuda:0")


def test_a_build_for_newer_cuda_than_the_driver_is_refused(fake_runtime, two_gpus):
    fake_runtime("onnxruntime_gpu", "1.31.1", cuda="13.0")

    assert "built for CUDA 13, and the driver supports CUDA 12.8" in refusal(
        device="cuda:0"
    )


def test_a_cpu_build_advises_the_build_for_the_gpu(fake_runtime, two_gpus):
    fake_runtime("onnxruntime", "1.31.1")

    (sentence,) = OnnxBackend().advice()

    assert sentence == (
        "the ONNX Runtime installed here has no code for NVIDIA GPUs; "
        "pip uninstall -y onnxruntime, then "
        'pip install "inference-models-onnx[cu12]"'
    )


def test_what_is_refused_on_the_gpu_is_advised(fake_runtime, two_gpus):
    fake_runtime("onnxruntime_gpu", "1.31.1", cuda="13.0")

    assert list(OnnxBackend().advice()) == [refusal(device="cuda:0")]


def test_a_build_that_runs_on_the_gpu_advises_nothing(fake_runtime, two_gpus):
    fake_runtime("onnxruntime_gpu", "1.26.0", cuda="12.8")

    assert list(OnnxBackend().advice()) == []


def test_without_a_gpu_nothing_is_advised(fake_runtime, monkeypatch):
    monkeypatch.setattr(hardware, "detect", lambda: hardware.Hardware(cpus=2))
    fake_runtime("onnxruntime", "1.31.1")

    assert list(OnnxBackend().advice()) == []


def test_on_a_jetson_nothing_is_advised(fake_runtime, two_gpus, monkeypatch):
    jetson = attrs.evolve(hardware.detect(), jetson="NVIDIA Jetson Orin Nano")
    monkeypatch.setattr(hardware, "detect", lambda: jetson)
    fake_runtime("onnxruntime", "1.31.1")

    assert list(OnnxBackend().advice()) == []


def test_providers_that_were_chosen_are_followed_without_advice(fake_runtime, two_gpus):
    fake_runtime("onnxruntime", "1.31.1")

    assert list(OnnxBackend(providers=["CPUExecutionProvider"]).advice()) == []


def test_a_given_cuda_provider_fixes_the_device(fake_runtime, two_gpus):
    fake_runtime("onnxruntime_gpu", "1.26.0", cuda="12.8")

    assert OnnxBackend(providers=[(CUDA, {"device_id": 1})]).devices() == ["cuda:1"]
    assert OnnxBackend(providers=["CPUExecutionProvider"]).devices() == ["cpu"]
    with pytest.raises(Unavailable, match="needs 'cuda:2', and ONNX Runtime has"):
        OnnxBackend(providers=[(CUDA, {"device_id": "2"})]).devices()


@pytest.mark.parametrize(
    ("version", "opset", "fits"),
    [
        ("1.21.0", 22, True),
        ("1.21.0", 23, False),
        ("1.31.1", 26, True),
        ("1.31.1", 27, False),
        ("1.99.0", 27, True),
        ("2.0.0", 99, True),
    ],
)
def test_an_opset_is_refused_only_by_runtimes_known_to_lack_it(
    fake_runtime, version, opset, fits
):
    fake_runtime("onnxruntime", version)
    reason = refusal(needs={"opset": opset})

    assert (reason is None) == fits
    assert fits or f"has opset {opset}" in reason


def test_another_precision_than_the_file_has_is_refused():
    assert "is fp16 and runs as it is" in refusal(wanted="fp32", precision="fp16")


def test_a_provider_that_the_file_does_not_work_with_is_refused():
    needs = {"incompatible_providers": ["CPUExecutionProvider"]}

    assert "does not work with 'CPUExecutionProvider'" in refusal(needs=needs)
    assert refusal(needs={"incompatible_providers": [CUDA]}) is None


@pytest.mark.parametrize("providers", [7, "CPUExecutionProvider", {"a": 1}])
def test_providers_that_are_no_list_are_told(providers):
    reason = refusal(needs={"incompatible_providers": providers})

    assert reason.endswith("which is no list of names; correct the card")
    assert refusal(needs={"incompatible_providers": None}) is None
