"""What inference takes of a checkpoint, and the network that it fills."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from inference_models import Artifact, Bundle, InvalidWeights, ModelCard  # noqa: E402
from inference_models_rfdetr import RfDetr  # noqa: E402
from inference_models_rfdetr.layout import SIZES  # noqa: E402

from .official import tensors  # noqa: E402

POSITIONS = "backbone.0.encoder.encoder.embeddings.position_embeddings"
LAYER = "backbone.0.encoder.encoder.encoder.layer"

TINY = {
    "patch": 16,
    "windows": 2,
    "width": 64,
    "features": [1, 2],
    "hidden": 64,
    "decoder_layers": 1,
    "queries": 5,
    "feedforward": 128,
}
KINDS = {
    "one map": {},
    "two maps": {"scales": [2.0, 0.5]},
    "masks": {"task": "instance-segmentation"},
    "points": {"task": "keypoint-detection", "keypoints": [2, 0, 3]},
}
"""One feature map, two that are resized, a head for masks, and one for points."""

TASKS = {"seg": "instance-segmentation", "keypoint": "keypoint-detection"}

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def model(classes=91, resolution=64, task="object-detection", **config) -> RfDetr:
    card = ModelCard(
        id="mine",
        architecture="rfdetr",
        task=task,
        artifacts=(Artifact("torch", {"main": "weights.pth"}),),
        labels=[f"class_{number}" for number in range(classes)],
        config={**config, "preprocessing": {"size": [resolution, resolution]}},
    )
    return RfDetr(Bundle(card, card.artifacts[0], Path()))


def published(size: str) -> RfDetr:
    layout = SIZES[size]
    task = TASKS.get(size.split("-")[0], "object-detection")
    facts = {"size": size, "resolution": layout.resolution, "task": task}
    return model(layout.classes, **facts)


def tiny(task="object-detection", **changes) -> RfDetr:
    return model(3, task=task, layout={**TINY, **changes})


def official(layout, **settings):
    """An official checkpoint that has shapes and takes no memory."""
    named = tensors(layout, **settings)
    return {name: torch.empty(shape, device="meta") for name, shape in named}


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def wanted(architecture: RfDetr):
    with torch.device("meta"):
        return shapes(architecture.modules()["main"].state_dict())


# Names and shapes


@pytest.mark.parametrize("keypoints", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_an_official_checkpoint_fills_the_network_exactly(size, keypoints):
    architecture = published(size)
    given = official(SIZES[size], keypoints=keypoints)

    assert shapes(architecture.weights("main", given)) == wanted(architecture)


@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod."])
def test_the_trainers_prefix_is_taken_off(prefix):
    given = official(SIZES["nano"])
    prefixed = {prefix + name: tensor for name, tensor in given.items()}
    taken = published("nano").weights("main", prefixed)

    assert shapes(taken) == wanted(published("nano"))


@kinds
@pytest.mark.parametrize("groups", [1, 13])
def test_a_checkpoint_of_a_layout_of_ones_own_fills_its_network(kind, groups):
    architecture = tiny(**kind)
    given = official(architecture.layout, groups=groups)

    assert shapes(architecture.weights("main", given)) == wanted(architecture)


def test_a_published_size_is_filled_at_another_resolution():
    architecture = model(size="nano", resolution=512)
    given = official(SIZES["nano"])

    assert shapes(architecture.weights("main", given)) == wanted(architecture)


@pytest.mark.parametrize(
    "name",
    [
        "surprise.weight",
        "transformer.decoder.layers.9.linear1.weight",
        "class_embed.0.weight",
        "transformer.enc_out_mask_embed.weight",
    ],
)
def test_an_unknown_tensor_stays_for_strict_loading_to_refuse(name):
    given = official(SIZES["nano"]) | {name: torch.empty(1, device="meta")}

    assert name in published("nano").weights("main", given)


def test_what_is_given_is_not_written_to():
    given = official(SIZES["base"])
    kept = shapes(given)
    published("base").weights("main", given)

    assert shapes(given) == kept


@pytest.mark.parametrize(
    ("size", "layers"), [("nano", 12), ("large", 12), ("base", 11)]
)
def test_layers_behind_the_deepest_feature_are_left_out(size, layers):
    taken = published(size).weights("main", official(SIZES[size]))
    numbers = {int(name.split(".")[6]) for name in taken if name.startswith(LAYER)}

    assert numbers == set(range(layers))


@pytest.mark.parametrize("name", ["query_feat.weight", "refpoint_embed.weight"])
def test_only_the_first_groups_queries_stay(name):
    table = torch.arange(13 * 5 * 4.0).reshape(13 * 5, 4)
    taken = tiny().weights("main", {name: table})

    assert torch.equal(taken[name], table[:5])


# Positions


def positions(side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, side * side + 1, 6, generator=generator)


def resized(table: torch.Tensor, resolution=64) -> torch.Tensor:
    architecture = model(3, resolution, layout=TINY)
    return architecture.weights("main", {POSITIONS: table})[POSITIONS]


@pytest.mark.parametrize(("side", "resolution"), [(7, 64), (3, 64), (37, 160), (1, 64)])
def test_positions_are_resized_as_torch_resizes_images(side, resolution):
    table, wanted = positions(side), resolution // 16
    image = table[0, 1:].T.reshape(1, 6, side, side)
    sizes = {"size": (wanted, wanted), "mode": "bicubic", "antialias": True}
    expected = torch.nn.functional.interpolate(image, **sizes)
    found = resized(table, resolution)

    assert torch.equal(found[:, 0], table[:, 0])
    torch.testing.assert_close(found[0, 1:].T, expected[0].flatten(1))


def test_positions_of_the_same_side_stay_as_they_are():
    table = positions(4)

    assert torch.equal(resized(table), table)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_keep_their_type(dtype):
    found = resized(positions(7).to(dtype))

    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), resized(positions(7)), atol=0.05, rtol=0)


@pytest.mark.parametrize("rows", [0, 1, 4, 9, 16])
def test_positions_that_are_no_square_are_refused(rows):
    with pytest.raises(InvalidWeights, match=f"{rows} rows, .* one and a square"):
        resized(torch.zeros(1, rows, 6))


# Points


def points(*counts: int):
    """The mask of a checkpoint whose classes have so many points, and nothing else."""
    numbers = torch.tensor(counts)
    return {"_kp_active_mask": torch.arange(max(counts)) < numbers[:, None]}


def test_classes_with_other_points_than_the_card_says_are_refused():
    wanted = tiny(task="keypoint-detection", keypoints=[0, 3])
    with pytest.raises(InvalidWeights, match=r"\(3, 0\) points, .* model \(0, 3\)"):
        wanted.weights("main", points(3, 0))

    assert wanted.weights("main", points(0, 3)) == {}


def test_a_model_without_points_takes_no_weights_with_them():
    with pytest.raises(InvalidWeights, match=r"have \(0, 17\) points"):
        published("nano").weights("main", points(0, 17))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_points_of_another_model_are_told_by_their_shape(shape):
    given = {"_kp_active_mask": torch.zeros(shape, dtype=torch.bool)}
    with pytest.raises(InvalidWeights, match="'_kp_active_mask' has the shape"):
        published("keypoint-preview").weights("main", given)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float8_e4m3fn])
def test_points_are_counted_in_any_type(dtype):
    given = {name: mask.to(dtype) for name, mask in points(0, 17).items()}

    assert published("keypoint-preview").weights("main", given) == {}


def test_what_an_earlier_design_left_is_not_taken():
    given = {"keypoint_head.keypoint_proj.weight": torch.zeros(4, 4)}

    assert published("keypoint-preview").weights("main", given) == {}


def test_a_class_without_points_has_slots_of_zeros():
    architecture = tiny(task="keypoint-detection", keypoints=[2, 0, 3])
    *_, slots = network(architecture)(pictures(2))
    there = slots.unflatten(2, (3, 3)).any(dim=-1)

    assert (
        there.all(dim=1).tolist()
        == [[[True, True, False], [False, False, False], [True, True, True]]] * 2
    )
    assert not slots.unflatten(2, (3, 3))[:, :, 1].any()


# The network


def network(architecture: RfDetr):
    """Filled so that every tensor matters to the outputs."""
    filled = architecture.modules()["main"].eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in filled.state_dict().items():
        tensor.normal_(0, 0.2, generator=generator)
        if "norm" in name and name.endswith("weight"):
            tensor.add_(1)
    return filled


def pictures(count: int, side=64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, side, side, generator=generator)


@kinds
@pytest.mark.parametrize("count", [1, 2, 3])
def test_outputs_have_the_shapes_that_the_signature_states(kind, count):
    architecture = tiny(**kind)
    _, stated = architecture.signature("main")
    outputs = network(architecture)(pictures(count))
    expected = [(count, *spec.shape[1:]) for spec in stated.values()]

    further = [architecture.further] if architecture.further else []
    assert list(stated) == ["logits", "boxes", "objectness", *further]
    assert [tuple(output.shape) for output in outputs] == expected


@kinds
def test_an_image_gives_in_a_batch_what_it_gives_alone(kind):
    # In float64, since rounding of float32 grows where points are sampled.
    filled, images = network(tiny(**kind)).double(), pictures(3).double()
    alone = [filled(image[None]) for image in images]

    for together, each in zip(filled(images), zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(together, torch.cat(each))


@kinds
def test_pictures_matter_to_every_output(kind):
    outputs = network(tiny(**kind))(pictures(2))

    for first, second in (output.unbind() for output in outputs):
        assert torch.isfinite(first).all()
        assert not torch.allclose(first, second, atol=1e-3)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(RuntimeError):
        network(tiny())(pictures(1, side=96))


def test_classes_are_as_many_as_labels():
    logits, _, _ = network(model(7, layout=TINY))(pictures(1))

    assert logits.shape[-1] == 7
