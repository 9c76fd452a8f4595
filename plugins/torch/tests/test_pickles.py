"""Checkpoints that are to run something, to take all memory, or to run for ever.

Most are put together from a pickle's own operations: no pickler would write them.
"""

import io
import json
import pickle
import random
import re
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from collections import Counter, OrderedDict
from textwrap import dedent

import pytest
import torch

from inference_models import InvalidWeights
from inference_models_torch import TorchBackend
from inference_models_torch.weights import read_tensors

GIGABYTE = 2**30


def pickled(*operations):
    return b"\x80\x02" + b"".join(operations) + b"."


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    digits = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def code(name):
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def called(name, *arguments):
    return code(name) + tuple_of(*arguments) + b"R"


def storage(count=1, key=None):
    kind = code("torch.FloatStorage")
    named = (text("storage"), kind, key or text("0"), text("cpu"), number(count))
    return tuple_of(*named) + b"Q"


def tensor(size=(1,), stride=(1,), offset=0, count=1, start=None, flag=b"\x89"):
    return called(
        "torch._utils._rebuild_tensor_v2",
        storage(count) if start is None else start,
        number(offset),
        tuple_of(*map(number, size)),
        tuple_of(*map(number, stride)),
        flag,
        called("collections.OrderedDict"),
    )


def state(weight=None, **beside):
    """A state dict of one tensor, "w", and what is given."""
    items = {"w": tensor() if weight is None else weight, **beside}
    pairs = b"".join(text(name) + value for name, value in items.items())
    return pickled(b"}(" + pairs + b"u")


ENDLESS = tensor(size=[GIGABYTE], stride=[0])
"""A tensor of four gigabytes in a file of a few bytes."""


def lists(depth):
    """A list of a list twice, of a list twice, and so on."""
    made = b"".join(b"]r" + struct.pack("<I", n) for n in range(depth))
    joined = (b"aj" + struct.pack("<I", n) + b"a" for n in range(depth - 1, 0, -1))
    return made + b"".join(joined)


def tuples(depth):
    """A tuple of a tuple twice, of a tuple twice, and so on."""
    return b")q\0" + b"h\0\x86q\0" * depth


@pytest.fixture
def save(tmp_path):
    """Write a pickle as torch lays its archives out, or as it did before those."""

    def save(content, zipped=True, name="model.pth", data=b"\0" * 4):
        path = tmp_path / name
        if not zipped:
            about = [0x1950A86A20F9469CFC6C, 1001, {}]
            parts = [pickle.dumps(value, 2) for value in about]
            content = content.replace(b"tQ", b"NtQ")  # a storage may be of another
            parts += [content, pickle.dumps(["0"], 2), struct.pack("<Q", 1), data]
            path.write_bytes(b"".join(parts))
            return path
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", content)
            archive.writestr("model/version", b"3\n")
            archive.writestr("model/data/0", data)
        return path

    return save


def refusal(path):
    """What the backend says of a file, asked by inspection and by reading."""
    words = []
    for read in (TorchBackend().inspect, read_tensors):
        with pytest.raises(InvalidWeights) as caught:
            read(path)
        words.append(str(caught.value))
    assert words[0] == words[1]
    assert str(path) in words[0]
    assert "weights_only" not in words[0]
    return words[0]


@pytest.mark.parametrize("zipped", [True, False])
def test_what_these_tests_write_is_read_where_nothing_is_wrong(save, zipped):
    assert read_tensors(save(state(), zipped)).keys() == {"w"}


# What would be run


@pytest.fixture
def canary(tmp_path):
    """A file, and a call that writes it; that it was not written is checked."""
    path = tmp_path / "canary"

    def call(name="os.system"):
        return called(name, text(f"echo > '{path}'"))

    yield call
    assert not path.exists()


def test_the_canary_would_be_written(tmp_path):
    path = tmp_path / "canary"
    pickle.loads(pickled(called("os.system", text(f"echo > '{path}'"))))

    assert path.exists()


SYSTEMS = ["os.system", "posix.system", "nt.system", "subprocess.getoutput"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_command_is_not_run(save, canary, name, zipped):
    words = refusal(save(pickled(canary(name)), zipped))

    assert f"holds {name}, which could run code" in words


def test_a_function_that_is_only_named_is_refused_too(save):
    words = refusal(save(state(f=code("subprocess.getoutput"))))

    assert "holds subprocess.getoutput, which could run code" in words


def test_a_tar_is_told_by_its_first_header(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 160_000  # which takes tarfile for ever
    path = tmp_path / "weights.pth"
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + b"1" * 160_256)

    assert "is a tar, torch's oldest format" in refusal(path)


def test_a_tar_is_not_read(tmp_path, canary):
    path = tmp_path / "model.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickled(canary())
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

    assert "is a tar, torch's oldest format" in refusal(path)


PLACES = {
    "the name of a tensor": lambda call: pickled(b"}" + call + tensor() + b"s"),
    "a tuple in a name": lambda call: pickled(b"}" + tuple_of(call) + tensor() + b"s"),
    "beside the tensors": lambda call: state(x=call),
    "the flag of a tensor": lambda call: state(tensor(flag=call)),
    "the storage of a tensor": lambda call: state(tensor(start=call)),
    "the name of a storage": lambda call: state(tensor(start=storage(key=call))),
    "a storage by itself": lambda call: state(tensor(start=call + b"Q")),
    "the state of a mapping": lambda call: pickled(
        called("collections.OrderedDict") + b"}" + text("x") + call + b"sb"
    ),
    "the state of a tensor": lambda call: state(tensor() + tuple_of(call) + b"b"),
    "an attribute of arguments": lambda call: state(
        a=code("argparse.Namespace") + b")\x81}" + text("x") + call + b"sb"
    ),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_command_is_run_nowhere(save, canary, place, zipped):
    assert "holds os.system" in refusal(save(place(canary()), zipped))


OPERATIONS = {
    "by INST": b"(" + text("true") + b"ios\nsystem\n",
    "by OBJ": b"(" + code("os.system") + text("true") + b"o",
    "by STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93" + tuple_of(text("true")) + b"R",
    "by an extension": b"\x82\x01" + tuple_of(text("true")) + b"R",
    "by NEWOBJ": code("os.system") + tuple_of(text("true")) + b"\x81",
    "by NEWOBJ_EX": code("os.system") + tuple_of(text("true")) + b"}\x92",
    "by what a call made": called("torch.Size", number(1)) + b")R",
    "by a class made a function": code("builtins.getattr") + b")R",
    "by a reader of its own": called("torch.storage._load_from_bytes", text("")),
    "by an instance": code("argparse.Namespace") + b")\x81)R",
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_there_is_no_other_way_to_call(save, operation):
    words = refusal(save(pickled(operation)))

    assert re.search("which could run code|is damaged, or no checkpoint", words)


REBUILDS = {
    "a function of its own": called(
        "torch._tensor._rebuild_from_type_v2",
        *(code("os.system"), code("torch.Tensor"), tuple_of(text("true")), b"}"),
    ),
    "attributes in place of methods": called(
        "torch._utils._rebuild_parameter_with_state",
        *(tensor(), b"\x89", b"}", b"}" + text("is_complex") + number(1) + b"s"),
    ),
    "another device": called(
        "torch._utils._rebuild_meta_tensor_no_storage",
        *(code("torch.float32"), tuple_of(number(1)), tuple_of(number(1)), b"\x89"),
    ),
    "a class of its own": called(
        "torch._utils._rebuild_wrapper_subclass", code("torch.Tensor")
    ),
}


@pytest.mark.parametrize("call", REBUILDS.values(), ids=REBUILDS)
def test_tensors_are_rebuilt_in_no_unusual_way(save, call):
    assert "holds torch._" in refusal(save(state(call)))


TARGETS = {
    "a function": code("torch._utils._rebuild_tensor_v2"),
    "a class": code("torch.Size"),
    "a tensor": tensor(),
    "a number": number(1),
}


@pytest.mark.parametrize("operation", [b"b", b"s", b"a"], ids=["BUILD", "SET", "ADD"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_but_plain_objects_is_filled(save, target, operation):
    before = vars(torch._utils._rebuild_tensor_v2).copy()
    item = text("x") + number(1)
    filled = {b"b": b"}" + item + b"sb", b"s": item + b"s", b"a": number(1) + b"a"}
    refusal(save(pickled(target + filled[operation])))

    assert vars(torch._utils._rebuild_tensor_v2) == before


def test_a_program_under_the_name_of_a_checkpoint_is_not_loaded(tmp_path, canary):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", pickled(canary()))
        archive.writestr("model/data.pkl", pickled(canary()))
        archive.writestr("model/code/__torch__.py", "import os; os.abort()")
        archive.writestr("model/version", b"3\n")

    assert "holds a TorchScript program, which could run code" in refusal(path)


# What would take all memory, all time or all of the stack


def counting(made):
    """A storage whose size is what a call made."""
    kind = code("torch.FloatStorage")
    return tuple_of(text("storage"), kind, text("0"), text("cpu"), made) + b"Q"


BOMBS = {
    "holds builtins.bytearray, which could": pickled(
        called("builtins.bytearray", number(GIGABYTE))
    ),
    "holds _codecs.encode, which could": pickled(
        *(text("hex"), b"q\2", code("_codecs.encode"), b"q\1", b"h\1" * 27),
        *(text("a" * 8), text("latin1"), b"\x86R", b"h\2\x86R" * 27),
    ),
    "holds torch._utils._rebuild_device_tensor_from_cpu_tensor": state(
        called(
            "torch._utils._rebuild_device_tensor_from_cpu_tensor",
            *(ENDLESS, code("torch.float64"), text("cpu"), b"\x89"),
        )
    ),
    "gives builtins.set what could": state(s=called("builtins.set", ENDLESS)),
    "gives torch.Size what could": state(s=called("torch.Size", ENDLESS)),
    "gives collections.Counter what could": state(
        c=called("collections.Counter", ENDLESS)
    ),
    "gives torch._utils._rebuild_parameter what could": state(
        code("torch._utils._rebuild_parameter") + ENDLESS + b"R"
    ),
    "gives the state of an object what could": state(tensor() + ENDLESS + b"b"),
    "names a storage by what it made itself": state(tensor(start=counting(ENDLESS))),
    "is smaller than 'w' in it claims to be": state(ENDLESS),
    # Twice as long for each more; so many take torch a second.
    "takes more than 4194304 steps to read": pickled(b"}" + tuples(26) + b"Ns"),
    "nests tuples more than 100 deep": pickled(b"})" + b"\x85" * 2**21 + b"Ns"),
    "holds over 1048576 values beside its tensors": state(lists=lists(40)),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What another process says of each bomb, and how many bytes it took at most."""
    pytest.importorskip("resource")
    folder = tmp_path_factory.mktemp("bombs")
    for index, content in enumerate(BOMBS.values()):
        with zipfile.ZipFile(folder / f"{index:02}.pth", "w") as archive:
            archive.writestr("model/data.pkl", content)
            archive.writestr("model/version", b"3\n")
            archive.writestr("model/data/0", b"\0" * 4)
    (folder / "compressed.pth").write_bytes(deflated(2**28))
    (folder / "two-faced.pth").write_bytes(two_faced(2**28))
    program = """
        import json, resource, sys
        from pathlib import Path
        from inference_models_torch.weights import read_pickle
        unit = 1 if sys.platform == "darwin" else 1024
        def peak():
            return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sorted(Path(sys.argv[1]).iterdir()):
            before, words = peak(), "nothing"
            try:
                read_pickle(path)
            except Exception as error:
                words = f"{type(error).__name__}: {error}"
            print(json.dumps([path.stem, words, peak() - before]), flush=True)
    """
    command = [sys.executable, "-c", dedent(program), str(folder)]
    return {stem: rest for stem, *rest in map(json.loads, lines_of(command))}


def lines_of(command):
    """What a process prints until it ends, crashes, or takes far too long."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").splitlines()
    return done.stdout.splitlines()


@pytest.mark.parametrize(("index", "words"), [*enumerate(BOMBS)], ids=BOMBS)
def test_a_bomb_is_told_without_going_off(said, index, words):
    answer, taken = said[f"{index:02}"]

    assert answer.startswith("InvalidWeights: ")
    assert words in answer
    assert taken < 2**28


def deflated(size):
    """An archive with an entry of so many bytes, in a thousandth of them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", state(), zipfile.ZIP_STORED)
        with archive.open("model/version", "w") as entry:
            for _ in range(size // 2**20):
                entry.write(b"3" * 2**20)
    return file.getvalue()


def two_faced(size):
    """The same behind a list of entries that are stored.

    The last record says where the first list is, which torch believes. Python takes the
    list right before that record.
    """
    hidden = deflated(size)
    with zipfile.ZipFile(io.BytesIO(hidden)) as archive:
        length = archive.getinfo("model/version").compress_size
    shown = io.BytesIO()
    with zipfile.ZipFile(shown, "w") as archive:
        archive.writestr("model/data.pkl", state())
        archive.writestr("model/version", b"3" * length)
    return hidden[:-22] + shown.getvalue()[:-22] + hidden[-22:]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compressed", "is compressed, which torch's files are not"),
        ("two-faced", "its list of entries is not at its end"),
    ],
)
def test_an_archive_that_inflates_is_not_unpacked(said, name, words):
    answer, taken = said[name]

    assert answer.startswith("InvalidWeights: ")
    assert words in answer
    assert taken < 2**27


def test_pythons_reader_sees_nothing_wrong_with_two_faces():
    with zipfile.ZipFile(io.BytesIO(two_faced(2**20))) as archive:
        kinds = {entry.compress_type for entry in archive.infolist()}

        assert {zipfile.ZIP_STORED} == kinds
        assert archive.testzip() is None


def test_an_archive_with_a_remark_at_its_end_is_not_as_torch_writes_it(save):
    path = save(state())
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hello"

    assert "its list of entries is not at its end" in refusal(path)


@pytest.mark.parametrize(
    "at", [-98, -50, -34, -22], ids=["record", "list", "at", "end"]
)
def test_an_archive_whose_last_records_differ_is_refused(workshop, at):
    """Those that torch writes: of a large archive, where that lies, and the last."""
    path = workshop.pickle(workshop.state())
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)

    assert "its list of entries is not at its end" in refusal(path)


def test_an_entry_of_two_sizes_is_refused(save):
    path = save(state())
    content = bytearray(path.read_bytes())
    line = content.index(b"PK\1\2")
    content[line + 24 : line + 28] = struct.pack("<L", 2**31)
    path.write_bytes(content)

    assert "is compressed, which torch's files are not" in refusal(path)


def test_an_entry_that_only_calls_itself_compressed_is_refused(save):
    """torch would take its bytes as they are."""
    path = save(state())
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2") + 10] = zipfile.ZIP_DEFLATED
    path.write_bytes(content)

    assert "is compressed, which torch's files are not" in refusal(path)


@pytest.mark.parametrize("name", ["other/data.pkl", "model/DATA.PKL", "model/data.pkl"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_has_one_pickle(save, name):
    path = save(state())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, state())

    assert "holds 2 pickles, where torch writes one" in refusal(path)


SIZES = {
    "a tensor larger than its storage": tensor(size=[GIGABYTE]),
    "a shape that overflows": tensor(size=[2**62, 2**62], stride=[2**62, 1]),
    "a negative size": tensor(size=[-4]),
    "a negative stride": tensor(size=[4], stride=[-1]),
    "a negative offset": tensor(offset=-100),
    "an offset beyond the storage": tensor(offset=2**40),
    "a size that is a text": called(
        "torch._utils._rebuild_tensor_v2",
        *(storage(), number(0), text("a"), text("b"), b"\x89", b"}"),
    ),
    "a storage that is a number": tensor(start=number(1)),
    "a storage of another kind": tensor(start=tuple_of(text("module")) + b"Q"),
    "a storage by number": tensor(start=number(0) + b"Q"),
    "a storage that is missing": tensor(start=storage(key=text("9"))),
    "a storage outside the archive": tensor(start=storage(key=text("../../9"))),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("weight", SIZES.values(), ids=SIZES)
def test_a_tensor_has_no_more_than_its_file(save, weight, zipped):
    assert "is damaged, or no checkpoint" in refusal(save(state(weight), zipped))


@pytest.mark.parametrize("count", [2**33, 2**40, 2**62, -5])
def test_a_storage_has_no_more_than_its_file(save, count):
    words = refusal(save(state(tensor(count=count)), zipped=False))

    assert "is damaged, or no checkpoint" in words


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("at", range(5))
def test_every_pickle_of_a_file_is_looked_through(save, zipped, at):
    """Three come before the tensors in files of the older kind, and one after."""
    path = save(state(z=called("builtins.bytearray", number(8))), zipped)
    if not zipped:
        parts = [pickle.dumps(0, 2)] * 5
        parts[at] = pickled(called("builtins.bytearray", number(8)))
        path.write_bytes(b"".join(parts))

    assert "holds builtins.bytearray, which could" in refusal(path)


KEYS = {
    "a number": number(5),
    "none": b"N",
    "a tuple": tuple_of(text("w")),
    "a tensor": tensor(),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_tensor_has_a_text_for_a_name(save, key):
    path = save(pickled(b"}(", key, tensor(), text("w"), tensor(), b"u"))

    assert "for a name, and is not loaded" in refusal(path)


# What is harmless


def test_what_training_code_keeps_beside_tensors_is_read(workshop):
    beside = {
        "names": ["a"] * 20_000,
        "scheduler": {"milestones": Counter([100]), "betas": (0.9, 0.99)},
        "order": OrderedDict(a=1),
        "arguments": types.SimpleNamespace(kinds={"a"}, z=1j, w=None),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "shape": torch.Size([1, 2]),
    }
    parameter = torch.nn.Parameter(torch.ones(2))
    path = workshop.pickle({"model": {"w": parameter, "v": torch.ones(2)}, **beside})
    facts = TorchBackend().inspect(path)

    assert facts.tensors.keys() == {"w", "v"}
    assert facts.metadata["names"] == ["a"] * 20_000
    assert facts.metadata["scheduler"]["betas"] == [0.9, 0.99]
    assert facts.metadata["arguments"] == {"w": None}


@pytest.mark.parametrize("zipped", [True, False])
def test_parameters_of_the_first_versions_of_torch_are_read(save, zipped):
    about = tuple_of(b"\x88", b"\x89", called("collections.OrderedDict"))
    old = called("torch.nn.parameter.Parameter", tensor()) + about + b"b"

    assert read_tensors(save(state(old), zipped))["w"].requires_grad


def test_weights_that_share_their_memory_are_read(workshop):
    whole = torch.arange(6.0)
    path = workshop.pickle({"whole": whole, "part": whole[2:4], "tied": whole})

    assert read_tensors(path)["part"].tolist() == [2, 3]


def test_a_large_archive_ends_as_a_small_one(workshop):
    """With more entries than 16 bits count, it has the records of a large one."""
    tensors = {str(index): torch.ones(()) for index in range(300)}
    path = workshop.pickle(tensors)
    assert b"PK\6\7" in path.read_bytes()[-98:]

    assert read_tensors(path).keys() == tensors.keys()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pickletools")
@pytest.mark.parametrize("seed", range(4))
def test_damage_gives_tensors_or_invalid_weights_and_nothing_else(save, seed):
    chance = random.Random(seed)
    whole = state(tensor(size=[2], count=2), names=b"]" + text("a") + b"a")
    for index in range(150):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = save(bytes(content), zipped=index % 2 == 0, data=b"\0" * 8)
        try:
            TorchBackend().inspect(path)
        except InvalidWeights:
            continue
