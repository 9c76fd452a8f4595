"""The network against transformers' implementation, and against the official one.

Queries follow the order of the cells with the highest objectness, and two cells of
random weights can be nearer than rounding; then they change places and move the rest.
So all scores before that order are compared, and most of the pictures after it.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import attrs
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inference_models_rfdetr.checkpoint import for_inference  # noqa: E402
from inference_models_rfdetr.layout import SIZES, Layout  # noqa: E402
from inference_models_rfdetr.network import RfDetr  # noqa: E402
from inference_models_rfdetr.network import network as network_of  # noqa: E402

from .official import tensors  # noqa: E402

OFFICIAL = Path(__file__).parent / "official_large_legacy.npz"
POINTS = Path(__file__).parent / "official_key_points.npz"


def draw(layout: Layout, groups: int = 1) -> dict[str, torch.Tensor]:
    """The same weights on every machine; each tensor matters to the outputs."""
    state = {}
    for name, shape in tensors(layout, groups):
        random = np.random.RandomState(zlib.crc32(name.encode()))
        values = random.standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            values /= math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight") or "lambda" in name:
            values = 1 + values / 10
        else:
            values /= 10
        state[name] = torch.from_numpy(values)
    counts = torch.tensor(layout.keypoints or (0,))[: len(layout.keypoints)]
    most = max(layout.keypoints, default=0)
    state["_kp_active_mask"] = torch.arange(most) < counts[:, None]
    return state


def network(layout: Layout, state: dict[str, torch.Tensor]) -> RfDetr:
    made = network_of(layout).eval()
    made.load_state_dict(for_inference(state, layout), strict=True)
    return made


def pixels(seed: int, side: int) -> torch.Tensor:
    values = np.random.RandomState(seed).standard_normal((1, 3, side, side))
    return torch.from_numpy(values.astype(np.float32))


def run(module: RfDetr, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        outputs = module(batch)
    names = ("logits", "boxes", "objectness", "further")
    return dict(zip(names[: len(outputs)], outputs, strict=True))


def reference(layout: Layout, state: dict[str, torch.Tensor]):
    pytest.importorskip(
        "transformers.models.rf_detr", reason="needs RF-DETR of transformers"
    )
    import transformers

    table = state["backbone.0.encoder.encoder.embeddings.position_embeddings"]
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=layout.width,
        num_attention_heads=layout.width // 64,
        image_size=math.isqrt(table.shape[1] - 1) * layout.patch,
        patch_size=layout.patch,
        num_windows=layout.windows,
        out_features=[f"stage{depth}" for depth in layout.features],
    )
    config = transformers.RfDetrConfig(
        backbone_config=backbone,
        d_model=layout.hidden,
        decoder_layers=layout.decoder_layers,
        decoder_n_points=layout.points,
        decoder_self_attention_heads=layout.hidden // 32,
        decoder_cross_attention_heads=layout.hidden // 16,
        num_queries=layout.queries,
        group_detr=1,
        num_labels=layout.classes,
        layer_norm_eps=1e-6,  # that of the original; transformers' default is another
    )
    given = {name: tensor for name, tensor in state.items() if name[0] != "_"}
    kind = "InstanceSegmentation" if layout.segments else "ObjectDetection"
    made = getattr(transformers, f"RfDetrFor{kind}").from_pretrained(
        None, config=config, state_dict=given
    )
    return made.eval()


OTHERS = ("seg-", "keypoint-", "large-legacy")
DETECTORS = [size for size in SIZES if not size.startswith(OTHERS)]


@pytest.mark.parametrize("size", [*DETECTORS, "seg-nano", "seg-medium"])
def test_scores_boxes_and_masks_are_those_of_transformers(size):
    layout = SIZES[size]
    state = draw(layout)
    batch = torch.cat([pixels(seed, layout.resolution) for seed in range(4)])
    found = run(network(layout, state), batch)
    with torch.inference_mode():
        expected = reference(layout, state)(batch)

    if not layout.segments:  # transformers' network for that keeps objectness
        best = expected.enc_outputs_class.amax(dim=-1).sigmoid()
        chosen = found["objectness"].topk(layout.queries).values.sigmoid()
        assert (best - chosen).abs().max() <= 1e-4
    assert expected.logits.std() > 0.1
    apart = [
        (expected.logits.sigmoid() - found["logits"].sigmoid()).abs(),
        (expected.pred_boxes - found["boxes"]).abs(),
    ]
    equal = torch.cat(apart, dim=-1).amax(dim=(1, 2)) <= 1e-4
    if layout.segments:  # logits of any size, compared in what they vary by
        masks = (expected.pred_masks - found["further"]).abs().amax(dim=(1, 2, 3))
        assert expected.pred_masks.std() > 1
        equal &= masks <= 1e-3 * expected.pred_masks.std()
    print(f"{size}: {int(equal.sum())} of {len(equal)} pictures in the same order")
    assert equal.sum() >= len(equal) / 2


def test_large_legacy_gives_what_the_official_package_gives():
    """Its two feature maps are beyond transformers. `rfdetr` 1.11.2 made the file."""
    layout = SIZES["large-legacy"]
    with np.load(OFFICIAL) as official:
        batch = pixels(int(official["seed"]), layout.resolution)
        found = run(network(layout, draw(layout)), batch)

        scores = torch.from_numpy(official["logits"]).sigmoid()
        assert (scores - found["logits"].sigmoid()).abs().max() <= 1e-4
        assert np.abs(official["boxes"] - found["boxes"].numpy()).max() <= 1e-4


def test_points_are_those_of_the_official_package():
    """transformers has none. `rfdetr` 1.11.2 made the file."""
    with np.load(POINTS) as official:
        layout = attrs.evolve(
            SIZES["keypoint-preview"],
            resolution=int(official["resolution"]),
            classes=int(official["classes"]),
            keypoints=official["keypoints"].tolist(),
        )
        batch = pixels(int(official["seed"]), layout.resolution)
        found = run(network(layout, draw(layout)), batch)

        scores = torch.from_numpy(official["logits"]).sigmoid()
        assert layout.keypoints == (3, 0, 4, 2)
        assert (scores - found["logits"].sigmoid()).abs().max() <= 1e-4
        assert np.abs(official["boxes"] - found["boxes"].numpy()).max() <= 1e-4
        assert np.abs(official["points"] - found["further"].numpy()).max() <= 1e-4


def test_a_batch_gives_what_single_pictures_give():
    layout = attrs.evolve(SIZES["nano"], resolution=320, queries=20)
    module = network(layout, draw(layout))
    batch = torch.cat([pixels(seed, 320) for seed in range(3)])
    singles = [run(module, one[None]) for one in batch]

    for name, values in run(module, batch).items():
        expected = torch.cat([single[name] for single in singles])
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("keypoints", [(), (2, 0, 3)], ids=["boxes", "points"])
def test_a_network_is_traced_with_a_free_batch(keypoints):
    layout = Layout(
        64,
        width=128,
        features=(1, 2),
        hidden=64,
        decoder_layers=1,
        queries=5,
        keypoints=keypoints,
    )
    module = network(layout, draw(layout))
    batch = torch.export.Dim("batch")
    example = torch.cat([pixels(seed, 64) for seed in range(2)])
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    three = torch.cat([pixels(seed, 64) for seed in range(3)])

    for expected, found in zip(module(three), program.module()(three), strict=True):
        torch.testing.assert_close(expected, found, rtol=0, atol=1e-5)
