"""Files of weights: good ones, damaged ones and hostile ones."""

import argparse
import os
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from inference_models import Facts, InvalidWeights, RunFailed, TensorSpec, Unavailable
from inference_models_torch import TorchBackend, weights
from inference_models_torch.installed import Installed
from inference_models_torch.modules import set_precision

BATCH = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)


def inspect(path):
    return TorchBackend().inspect(path)


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"epoch": 3, "state_dict": state},
    ],
    ids=["bare", "official", "lightning"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_runs_pickled_weights_wherever_they_are_kept(workshop, content, zipped):
    path = workshop.pickle(
        content(workshop.state()), _use_new_zipfile_serialization=zipped
    )
    output = workshop.session(path)(input=BATCH)["output"].numpy()

    np.testing.assert_allclose(output, workshop.reference(BATCH), atol=1e-5)


def test_inspects_safetensors(workshop):
    state = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    specs = {"a": TensorSpec("float32", (2, 3)), "b": TensorSpec("bfloat16", (4,))}

    assert Facts("torch", specs, {}) == inspect(workshop.safetensors(state))


def test_inspects_what_lies_beside_a_state_dict(workshop):
    args = argparse.Namespace(classes=["a", "b"], lr=0.1, best=None, t=torch.ones(1))
    state = {"w": torch.zeros(2, dtype=torch.float16), "note": "n"}
    path = workshop.pickle({"model": state, "args": args, "epoch": 3, "w": 1, 5: 6})
    beside = {
        "args": {"classes": ["a", "b"], "lr": 0.1, "best": None},
        "epoch": 3,
        "note": "n",
    }

    assert Facts("torch", {"w": TensorSpec("float16", (2,))}, beside) == inspect(path)


def test_inspects_no_other_files(tmp_path):
    (tmp_path / "a.txt").write_text("hello")

    assert inspect(tmp_path / "a.txt") is None
    assert inspect(tmp_path) is None
    assert inspect(tmp_path / "absent.pth") is None


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_tells_a_truncated_file(workshop, kind, share):
    path = getattr(workshop, kind)(workshop.state())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(InvalidWeights, match="fetch it again"):
        inspect(path)
    with pytest.raises(InvalidWeights, match="fetch it again"):
        workshop.session(path)


def test_tells_where_a_checkpoint_has_its_tensors(workshop):
    saved = {"epoch": 3, "model_state_dict": {"weight": torch.ones(2)}}
    with pytest.raises(
        InvalidWeights,
        match="or under 'model' or 'state_dict', but under 'model_state_dict'; save",
    ):
        inspect(workshop.pickle(saved))


@pytest.mark.parametrize("content", [[1, 2], "text", {"a": 1}, torch.ones(2), {}])
def test_tells_a_pickle_without_tensors_by_name(workshop, content):
    with pytest.raises(InvalidWeights, match="no tensors by name"):
        inspect(workshop.pickle(content))


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("forced", [True, False])
def test_a_hostile_pickle_does_not_run(workshop, monkeypatch, zipped, forced):
    canary = workshop.folder / "canary"
    content = {**workshop.state(), "x": Hostile(f"echo > '{canary}'")}
    path = workshop.pickle(content, _use_new_zipfile_serialization=zipped)
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    for read in (inspect, workshop.session):
        with pytest.raises(InvalidWeights, match=r"system, which could run") as caught:
            read(path)
        assert "weights_only" not in str(caught.value)
    assert not canary.exists()


def test_a_pickled_module_and_torchscript_are_not_loaded(workshop):
    module = workshop.pickle(torch.nn.ReLU(), "module.pth")
    script = workshop.folder / "script.pt"
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("script/constants.pkl", b"")
        archive.writestr("script/version", b"3")
        archive.writestr("script/data.pkl", b"")

    with pytest.raises(InvalidWeights, match=r"ReLU, which could run code"):
        inspect(module)
    with pytest.raises(InvalidWeights, match="TorchScript program, which could run"):
        inspect(script)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_that_torch_wrote_is_told_for_what_it_is(workshop):
    path = workshop.folder / "script.pt"
    torch.jit.script(torch.nn.ReLU()).save(path)  # torch compresses its code

    with pytest.raises(InvalidWeights, match="TorchScript program, which could run"):
        inspect(path)


def test_a_compressed_archive_is_not_unpacked(workshop):
    path = workshop.folder / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"0" * 2**20)

    with pytest.raises(InvalidWeights, match="is compressed"):
        inspect(path)


def test_a_pickle_that_contains_itself_is_told(workshop):
    content = {"w": torch.ones(1)}
    content["self"] = content

    with pytest.raises(InvalidWeights, match="RecursionError"):
        inspect(workshop.pickle({"model": content}))


def test_an_unsafe_torch_reads_no_pickle(workshop, monkeypatch):
    path = workshop.pickle(workshop.state())
    monkeypatch.setattr(weights, "find_installed", lambda: Installed("2.9.0", None))

    with pytest.raises(Unavailable, match=r"torch>=2\.10"):
        workshop.session(path)


def test_names_the_tensors_that_do_not_fit(workshop):
    state = workshop.state()
    state["extra"] = state.pop("head.bias")
    state["head.weight"] = torch.zeros(6, 8)

    with pytest.raises(InvalidWeights) as caught:
        workshop.session(workshop.safetensors(state))

    message = str(caught.value)
    assert "it lacks head.bias" in message
    assert "it has unknown extra" in message
    assert "head.weight (6, 8) instead of (5, 8)" in message


def test_names_only_the_first_of_many(workshop):
    path = workshop.safetensors({"a": torch.zeros(1)})

    with pytest.raises(InvalidWeights, match=r"block\.1\.bias and \d+ more"):
        workshop.session(path)


def test_a_pack_that_returns_one_module_is_told_to_name_its_graph(
    workshop, monkeypatch
):
    monkeypatch.setattr(workshop.Tiny, "modules", lambda _: workshop.Net())

    said = r"modules\(\) of architecture 'tiny' returned TinyNet, .* \{'main': module\}"
    with pytest.raises(InvalidWeights, match=said):
        workshop.session(workshop.safetensors())


@pytest.mark.parametrize("asked", ["weights", "modules"])
def test_a_fault_of_a_pack_is_told_as_its_own(workshop, monkeypatch, asked):
    monkeypatch.setattr(workshop.Tiny, asked, lambda *_: {}["q"])

    said = rf"{asked}\(\) of architecture 'tiny' failed: KeyError: 'q'"
    with pytest.raises(RunFailed, match=said):
        workshop.session(workshop.safetensors())


def test_draws_no_random_weights_to_overwrite_them(workshop):
    path = workshop.safetensors()
    before = torch.random.get_rng_state()
    workshop.session(path)

    assert torch.equal(before, torch.random.get_rng_state())


def test_does_not_change_when_its_file_is_overwritten(workshop):
    path = workshop.pickle(workshop.state())
    session = workshop.session(path)
    before = session(input=BATCH)["output"]
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)

    assert torch.equal(before, session(input=BATCH)["output"])


class OfSeveral(nn.Module):
    """Layers in a list, which is never called itself."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)])])
        self.head = nn.Linear(4, 2)

    def forward(self, values):
        first, (second,) = self.layers
        return self.head(second(first(values)))


def test_a_list_of_modules_stays_in_full_precision_as_what_it_holds():
    module = OfSeveral()
    set_precision(module, torch.bfloat16, ("layers",))

    assert module.layers[0].weight.dtype == torch.float32
    assert module.layers[1][0].weight.dtype == torch.float32
    assert module(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
