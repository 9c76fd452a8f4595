"""Names and shapes of an official checkpoint, by the rules of its trainer."""

from __future__ import annotations

from collections.abc import Iterator

from inference_models_rfdetr.layout import Layout

Named = Iterator[tuple[str, tuple[int, ...]]]

LAYERS = 12  # of DINOv2, also where the last ones are not used
PRETRAINED = 37  # patches of 14 pixels along a side of the images DINOv2 learned from


def tensors(layout: Layout, groups: int = 13, keypoints: bool = True) -> Named:
    """Every tensor of a checkpoint; older ones have no mask of points."""
    if keypoints:
        yield (
            "_kp_active_mask",
            (len(layout.keypoints), max(layout.keypoints, default=0)),
        )
    yield from _decoder(layout)
    yield from _proposals(layout, groups)
    yield from _linear("class_embed", layout.hidden, layout.classes)
    yield from _perceptron("bbox_embed", layout.hidden, layout.hidden, 4, 3)
    yield "refpoint_embed.weight", (groups * layout.queries, 4)
    yield "query_feat.weight", (groups * layout.queries, layout.hidden)
    yield from _encoder("backbone.0.encoder.encoder", layout)
    yield from _projector("backbone.0.projector", layout)
    if layout.segments:
        yield from _masks("segmentation_head", layout)
    if layout.keypoints:
        yield from _points(layout, groups)


def _decoder(layout: Layout) -> Named:
    hidden = layout.hidden
    for number in range(layout.decoder_layers):
        name = f"transformer.decoder.layers.{number}"
        yield f"{name}.self_attn.in_proj_weight", (3 * hidden, hidden)
        yield f"{name}.self_attn.in_proj_bias", (3 * hidden,)
        yield from _linear(f"{name}.self_attn.out_proj", hidden, hidden)
        yield from _deformable(f"{name}.cross_attn", layout)
        yield from _linear(f"{name}.linear1", hidden, layout.feedforward)
        yield from _linear(f"{name}.linear2", layout.feedforward, hidden)
        for norm in ("norm1", "norm2", "norm3"):
            yield from _norm(f"{name}.{norm}", hidden)
    yield from _norm("transformer.decoder.norm", hidden)
    head = "transformer.decoder.ref_point_head"
    yield from _perceptron(head, 2 * hidden, hidden, hidden, 2)


def _deformable(name: str, layout: Layout) -> Named:
    hidden = layout.hidden
    points = hidden // 16 * len(layout.scales) * layout.points
    yield from _linear(f"{name}.sampling_offsets", hidden, 2 * points)
    yield from _linear(f"{name}.attention_weights", hidden, points)
    yield from _linear(f"{name}.value_proj", hidden, hidden)
    yield from _linear(f"{name}.output_proj", hidden, hidden)


def _proposals(layout: Layout, groups: int) -> Named:
    hidden = layout.hidden
    for group in range(groups):
        yield from _linear(f"transformer.enc_output.{group}", hidden, hidden)
        yield from _norm(f"transformer.enc_output_norm.{group}", hidden)
        boxes = f"transformer.enc_out_bbox_embed.{group}"
        yield from _perceptron(boxes, hidden, hidden, 4, 3)
        classes = f"transformer.enc_out_class_embed.{group}"
        yield from _linear(classes, hidden, layout.classes)


def _encoder(name: str, layout: Layout) -> Named:
    width, patch = layout.width, layout.patch
    side = PRETRAINED if patch == 14 else layout.side
    embeddings = f"{name}.embeddings"
    yield f"{embeddings}.cls_token", (1, 1, width)
    yield f"{embeddings}.mask_token", (1, width)
    yield f"{embeddings}.position_embeddings", (1, side**2 + 1, width)
    projection = f"{embeddings}.patch_embeddings.projection"
    yield f"{projection}.weight", (width, 3, patch, patch)
    yield f"{projection}.bias", (width,)
    for number in range(LAYERS):
        yield from _encoder_layer(f"{name}.encoder.layer.{number}", width)
    yield from _norm(f"{name}.layernorm", width)


def _encoder_layer(name: str, width: int) -> Named:
    for part in ("query", "key", "value"):
        yield from _linear(f"{name}.attention.attention.{part}", width, width)
    yield from _linear(f"{name}.attention.output.dense", width, width)
    yield from _linear(f"{name}.mlp.fc1", width, 4 * width)
    yield from _linear(f"{name}.mlp.fc2", 4 * width, width)
    for number in (1, 2):
        yield from _norm(f"{name}.norm{number}", width)
        yield f"{name}.layer_scale{number}.lambda1", (width,)


def _masks(name: str, layout: Layout) -> Named:
    hidden = layout.hidden
    yield f"{name}.bias", (1,)
    for number in range(layout.decoder_layers):
        block = f"{name}.blocks.{number}"
        yield f"{block}.dwconv.weight", (hidden, 1, 3, 3)
        yield f"{block}.dwconv.bias", (hidden,)
        yield from _norm(f"{block}.norm", hidden)
        yield from _linear(f"{block}.pwconv1", hidden, hidden)
    yield f"{name}.spatial_features_proj.weight", (hidden, hidden, 1, 1)
    yield f"{name}.spatial_features_proj.bias", (hidden,)
    yield from _norm(f"{name}.query_features_block.norm_in", hidden)
    yield from _linear(f"{name}.query_features_block.layers.0", hidden, 4 * hidden)
    yield from _linear(f"{name}.query_features_block.layers.2", 4 * hidden, hidden)
    yield from _linear(f"{name}.query_features_proj", hidden, hidden)


def _points(layout: Layout, groups: int) -> Named:
    hidden, count = layout.hidden, sum(layout.keypoints)
    yield "transformer.decoder.keypoint_pos_embed", (count, hidden)
    yield "transformer.decoder.keypoint_class_mask", (1 + count, 1 + count)
    for number in range(layout.decoder_layers):
        yield from _point_layer(f"transformer.decoder.layers.{number}", layout)
    for end in ("", "_enc"):
        name = f"transformer.keypoint_query_initializer{end}"
        yield f"{name}.queries", (count, hidden)
        yield from _linear(f"{name}.adaLN_modulation.0", hidden, hidden)
        yield from _linear(f"{name}.adaLN_modulation.2", hidden, 3 * hidden)
        yield from _linear(f"{name}.out_proj", hidden, hidden)
    heads = (f"transformer.enc_out_keypoint_embed.{group}" for group in range(groups))
    for head in ("keypoint_embed", *heads):
        yield from _perceptron(head, hidden, hidden, 8, 3)
    yield from _projector("backbone.0.cross_attn_projector", layout)


def _point_layer(name: str, layout: Layout) -> Named:
    hidden = layout.hidden
    yield f"{name}.instance_kp_layer_scale", (1,)
    yield f"{name}.kp_inst_self_attn.in_proj_weight", (3 * hidden, hidden)
    yield f"{name}.kp_inst_self_attn.in_proj_bias", (3 * hidden,)
    yield from _linear(f"{name}.kp_inst_self_attn.out_proj", hidden, hidden)
    yield from _deformable(f"{name}.kp_cross_attn", layout)
    yield from _linear(f"{name}.kp_linear1", hidden, 4 * hidden)
    yield from _linear(f"{name}.kp_linear3", 4 * hidden, hidden)
    for norm in ("kp_inst_norm", "kp_norm", "kp_cross_attn_norm", "kp_norm5"):
        yield from _norm(f"{name}.{norm}", hidden)


def _projector(name: str, layout: Layout) -> Named:
    width, hidden = layout.width, layout.hidden
    for level, scale in enumerate(layout.scales):
        for depth in range(len(layout.features)):
            sampling = f"{name}.stages_sampling.{level}.{depth}.0"
            yield from _resize(sampling, width, scale)
        stage = f"{name}.stages.{level}"
        inputs = len(layout.features) * (width // 2 if scale == 2 else width)
        yield from _mixer(f"{stage}.0", inputs, hidden)
        yield from _norm(f"{stage}.1", hidden)


def _resize(name: str, width: int, scale: float) -> Named:
    if scale == 2:
        yield f"{name}.weight", (width, width // 2, 2, 2)
        yield f"{name}.bias", (width // 2,)
    elif scale == 0.5:
        yield from _convolution(name, width, width, 3)


def _mixer(name: str, inputs: int, outputs: int) -> Named:
    half = outputs // 2
    yield from _convolution(f"{name}.cv1", inputs, outputs, 1)
    yield from _convolution(f"{name}.cv2", 5 * half, outputs, 1)
    for pair in range(3):
        for number in (1, 2):
            yield from _convolution(f"{name}.m.{pair}.cv{number}", half, half, 3)


def _convolution(name: str, inputs: int, outputs: int, kernel: int) -> Named:
    yield f"{name}.conv.weight", (outputs, inputs, kernel, kernel)
    yield from _norm(f"{name}.bn", outputs)


def _linear(name: str, inputs: int, outputs: int) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _perceptron(name: str, inputs: int, inner: int, outputs: int, depth: int) -> Named:
    sizes = [inputs, *[inner] * (depth - 1), outputs]
    for number in range(depth):
        yield from _linear(f"{name}.layers.{number}", *sizes[number : number + 2])
