from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx.helper
import pytest

from inference_models import (
    InferenceModelsError,
    InvalidInput,
    InvalidWeights,
    ModelClosed,
    Plan,
    RunFailed,
    TensorSpec,
    Unavailable,
)
from inference_models.inputs import host_array
from inference_models_onnx import OnnxBackend
from inference_models_onnx.threads import physical_cores

DOUBLE = """graph ({dtype}[{batch}, 3, 4] input) => ({dtype}[{batch}, 3, 4] output)
    {{ output = Add(input, input) }}"""


def double(dtype="float", batch="N"):
    return DOUBLE.format(dtype=dtype, batch=batch)


def ones(batch=1, dtype="float32"):
    return np.ones((batch, 3, 4), dtype)


def test_tells_inputs_and_outputs(start):
    session = start(double("uint8", batch=8))

    assert session.inputs == {"input": TensorSpec("uint8", (8, 3, 4))}
    assert session.outputs == {"output": TensorSpec("uint8", (8, 3, 4))}


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_runs_any_size_of_a_free_batch(start, batch):
    output = start(double())(input=ones(batch))["output"]

    assert output.shape == (batch, 3, 4)
    assert (output == 2).all()


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint8"])
def test_runs_in_the_dtype_of_the_graph(start, dtype):
    output = start(double(dtype))(input=ones(dtype=dtype))["output"]

    assert output.dtype == dtype
    assert (output == 2).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "takes 'input': float32 (4, 3, 4); it was given nothing"),
        ({"x": ones(4)}, "takes 'input': float32 (4, 3, 4); it was given 'x'"),
        ({"input": ones(4), "x": 1}, "it was given 'input', 'x'"),
        ({"input": ones(4, "float64")}, "'input' is float64 (4, 3, 4); the graph"),
        ({"input": ones(3)}, "is float32 (3, 3, 4); the graph takes float32 (4, 3, 4)"),
        ({"input": ones(4)[0]}, "is float32 (3, 4); the graph takes float32 (4, 3, 4)"),
        ({"input": [1.0]}, "'input' is of type list; give a NumPy array or a tensor"),
    ],
)
def test_a_wrong_input_is_named_with_what_is_wanted(start, inputs, message):
    with pytest.raises(InvalidInput) as caught:
        start(double(batch=4))(**inputs)

    assert message in str(caught.value)


def test_a_failure_inside_the_graph_is_typed(start):
    session = start("""graph (float[N] input) => (float[M] output)
        <int64[1] six = {6}> { output = Reshape(input, six) }""")

    with pytest.raises(RunFailed, match="ONNX Runtime failed to run"):
        session(input=np.zeros(5, np.float32))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype="f4").reshape(2, 4, 3).transpose(0, 2, 1),
        np.arange(24, dtype="f4").reshape(2, 3, 4)[::-1, :, ::-1],
        np.arange(24, dtype=">f4").reshape(2, 3, 4),
        np.broadcast_to(np.float32(3), (2, 3, 4)),
    ],
    ids=["transposed", "reversed", "big-endian", "broadcast"],
)
def test_scattered_and_read_only_inputs_are_read(start, array):
    array.flags.writeable = False
    before = array.copy()
    output = start(double())(input=array)["output"]

    assert (output == before * 2).all()
    assert (array == before).all()


def test_a_whole_array_is_not_copied():
    array = ones()

    assert np.shares_memory(host_array(array), array)
    assert host_array(np.array(3.0)).shape == ()


def test_a_tensor_is_read_in_place(start):
    torch = pytest.importorskip("torch")
    tensor = torch.ones(2, 3, 4, requires_grad=True)

    assert host_array(tensor).ctypes.data == tensor.data_ptr()
    assert (start(double())(input=tensor)["output"] == 2).all()


def test_outputs_are_the_callers(start):
    session = start("""graph (float[N] input) => (float[N] same, float[2] constant)
        <float[2] two = {2, 2}>
        { same = Identity(input)  constant = Identity(two) }""")
    array = np.ones(3, np.float32)
    first = session(input=array)
    first["same"][:] = 9
    first["constant"][:] = 9
    second = session(input=array)
    session.close()

    assert (array == 1).all()
    assert (second["same"] == 1).all()
    assert (second["constant"] == 2).all()


def test_threads_get_what_a_single_caller_gets(start):
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Conv", ["input", "w"], ["a"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Softmax", ["a"], ["output"], axis=1),
    ]
    weights = rng.normal(size=(16, 3, 3, 3)).astype(np.float32)
    w = onnx.numpy_helper.from_array(weights, "w")
    shapes = {"input": ["N", 3, "H", "W"], "output": ["N", 16, "H", "W"]}
    tensors = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    graph = onnx.helper.make_graph(
        nodes, "graph", [tensors["input"]], [tensors["output"]], [w]
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    session = start(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    images = [rng.random((1, 3, 40 + i, 50), np.float32) for i in range(64)]
    alone = [session(input=image)["output"] for image in images]
    barrier = threading.Barrier(8)

    def run(number):
        barrier.wait()
        return [session(input=image)["output"] for image in images[number::8]]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, range(8)))
    for number, outputs in enumerate(together):
        for output, expected in zip(outputs, alone[number::8], strict=True):
            np.testing.assert_array_equal(output, expected)


def test_a_closed_session_says_so(start):
    session = start(double())
    session.close()
    session.close()

    with pytest.raises(ModelClosed, match="is closed; load it again"):
        session(input=ones())


def test_all_graphs_of_an_artifact_are_opened(save, bundle):
    main = save(double())
    other = save("graph (float[N] x) => (float[N] y) { y = Neg(x) }", "other.onnx")
    plan = Plan("cpu", "fp32")
    sessions = OnnxBackend().open(bundle(main, {"other": other}), None, plan)

    assert (sessions["main"](input=ones())["output"] == 2).all()
    assert sessions["other"](x=np.ones(2, np.float32))["y"].tolist() == [-1, -1]


def test_providers_are_used_as_given(start):
    options = {"arena_extend_strategy": "kSameAsRequested"}
    session = start(double(), providers=[("CPUExecutionProvider", options)])

    assert (session(input=ones())["output"] == 2).all()


def test_an_unknown_provider_is_named_with_those_there_are(start):
    with pytest.raises(Unavailable) as caught:
        start(double(), providers=["CPUExecutionProvider", "NoExecutionProvider"])

    assert "'NoExecutionProvider' is not in the ONNX Runtime" in str(caught.value)
    assert "it has " in str(caught.value)
    assert "CPUExecutionProvider" in str(caught.value)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("spinning", [True, False])
def test_threads_change_no_result(start, threads, spinning):
    session = start(double(), threads=threads, spinning=spinning)

    assert (session(input=ones())["output"] == 2).all()


def test_a_core_counts_once_for_all_its_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings)

    assert physical_cores(tmp_path) == 2
    assert physical_cores(tmp_path / "nowhere") == 4


def test_a_model_too_new_for_the_runtime_says_which_it_knows(save, start):
    path = save(double(), opset=17)
    model = onnx.load_model(path)
    model.opset_import[0].version = 99
    path.write_bytes(model.SerializeToString())

    with pytest.raises((Unavailable, InvalidWeights), match="opset"):
        start(path)


def test_an_operator_that_no_runtime_has_is_typed(start):
    with pytest.raises(InferenceModelsError, match="Nonsense"):
        start(
            "graph (float[N] input) => (float[N] output) { output = Nonsense(input) }"
        )


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_invalid(save, start, share):
    path = save(double())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(InvalidWeights, match="damaged, cut off or no ONNX file"):
        start(path)


def test_a_missing_file_is_invalid(save, start):
    path = save(double())
    path.unlink()

    with pytest.raises(InvalidWeights, match="No such file"):
        start(path)


def test_a_graph_that_contradicts_itself_is_invalid(start):
    with pytest.raises(InvalidWeights, match="ONNX Runtime cannot open"):
        start("graph (float[2] input) => (float[3] output) { output = Neg(missing) }")
