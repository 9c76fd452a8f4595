"""Folders as transformers writes them: small models with random weights."""

from __future__ import annotations

import torch
import transformers as t

CLASSES = {0: "ant", 1: "bee", 2: "cat", 3: "dog", 4: "elk"}
_DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 12,
}
_RT_DETR = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "decoder_in_channels": [32, 32, 32],
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_layers": 2,
    "encoder_layers": 1,
    "num_queries": 12,
    "num_denoising": 0,
}
_RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
_HGNET = {
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 16, 24],
    "stage_mid_channels": [4, 4, 8, 8],
    "stage_out_channels": [16, 16, 24, 32],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "hidden_sizes": [16, 16, 24, 32],
    "embedding_size": 8,
}
_TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_FREE = {"size": {"shortest_edge": 160, "longest_edge": 260}}
_SQUARE = {"size": {"height": 96, "width": 96}}
_CROPPED = {"size": {"shortest_edge": 96}, "crop_size": _SQUARE["size"]}
_THREE = ["stage2", "stage3", "stage4"]


def _detr(kind, outputs, **more):
    config = getattr(t, f"{kind}Config")(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=t.ResNetConfig(**_RESNET, out_features=outputs),
        id2label=CLASSES,
        **_DETR,
        **more,
    )
    processor = getattr(t, f"{kind}ImageProcessorPil")(**_FREE)
    return getattr(t, f"{kind}ForObjectDetection")(config), processor


def _rt_detr(kind, backbone):
    config = getattr(t, f"{kind}Config")(
        backbone_config=backbone, id2label=CLASSES, **_RT_DETR
    )
    processor = t.RTDetrImageProcessorPil(size={"height": 160, "width": 160})
    return getattr(t, f"{kind}ForObjectDetection")(config), processor


def _yolos():
    config = t.YolosConfig(
        image_size=[160, 256],
        num_detection_tokens=12,
        id2label=CLASSES,
        **_TRANSFORMER,
    )
    return t.YolosForObjectDetection(config), t.YolosImageProcessorPil(**_FREE)


def _rt_resnet():
    return t.RTDetrResNetConfig(**_RESNET, out_features=_THREE)


def _table_transformer():
    config = t.TableTransformerConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=t.ResNetConfig(**_RESNET, out_features=["stage4"]),
        id2label=CLASSES,
        **_DETR,
    )
    processor = t.DetrImageProcessorPil(**_FREE)
    return t.TableTransformerForObjectDetection(config), processor


DETECTORS = {
    "conditional-detr": lambda: _detr("ConditionalDetr", ["stage4"]),
    "d-fine": lambda: _rt_detr("DFine", t.HGNetV2Config(**_HGNET, out_features=_THREE)),
    "deformable-detr": lambda: _detr("DeformableDetr", _THREE),
    "detr": lambda: _detr("Detr", ["stage4"]),
    "rt-detr": lambda: _rt_detr("RTDetr", _rt_resnet()),
    "rt-detr-v2": lambda: _rt_detr("RTDetrV2", _rt_resnet()),
    "table-transformer": _table_transformer,
    "yolos": _yolos,
}


def _classifier(kind, processor, **config):
    made = getattr(t, f"{kind}Config")(num_labels=5, **config)
    made.id2label = CLASSES
    return getattr(t, f"{kind}ForImageClassification")(made), processor


def _cropping(name, side=96, first=110, **fields):
    crop = {"height": side, "width": side}
    return getattr(t, f"{name}ImageProcessorPil")(
        size={"shortest_edge": first}, crop_size=crop, **fields
    )


def _deit():
    config = t.DeiTConfig(image_size=96, id2label=CLASSES, **_TRANSFORMER)
    processor = t.DeiTImageProcessorPil(
        size={"height": 110, "width": 110}, crop_size={"height": 96, "width": 96}
    )
    return t.DeiTForImageClassificationWithTeacher(config), processor


CLASSIFIERS = {
    "beit": lambda: _classifier(
        "Beit", t.BeitImageProcessorPil(**_SQUARE), image_size=96, **_TRANSFORMER
    ),
    "convnext": lambda: _classifier(
        "ConvNext",
        t.ConvNextImageProcessorPil(size={"shortest_edge": 96}),
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
    ),
    "deit": _deit,
    "dinov2": lambda: _classifier(
        "Dinov2", _cropping("Bit", 98), image_size=98, patch_size=14, **_TRANSFORMER
    ),
    "mobilenet-v2": lambda: _classifier(
        "MobileNetV2", _cropping("MobileNetV2"), image_size=96, depth_multiplier=0.25
    ),
    "mobilevit": lambda: _classifier(
        "MobileViT",
        _cropping("MobileViT"),
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 64],
        num_attention_heads=2,
        image_size=96,
    ),
    "pvt": lambda: _classifier(
        "Pvt",
        t.PvtImageProcessorPil(**_SQUARE),
        image_size=96,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        mlp_ratios=[2, 2, 2, 2],
    ),
    "segformer": lambda: _classifier(
        "Segformer",
        t.SegformerImageProcessorPil(**_SQUARE),
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
    ),
    "swin": lambda: _classifier(
        "Swin",
        t.ViTImageProcessorPil(**_SQUARE),
        image_size=96,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    "vit": lambda: _classifier(
        "ViT", t.ViTImageProcessorPil(**_SQUARE), image_size=96, **_TRANSFORMER
    ),
}


MORE_CLASSIFIERS = {
    "bit": lambda: _classifier(
        "Bit",
        _cropping("Bit"),
        embedding_size=32,
        hidden_sizes=[128, 128, 128, 128],
        depths=[1, 1, 1, 1],
    ),
    "convnext-v2": lambda: _classifier(
        "ConvNextV2",
        t.ConvNextImageProcessorPil(size={"shortest_edge": 96}),
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
    ),
    "cvt": lambda: _classifier(
        "Cvt",
        t.ConvNextImageProcessorPil(size={"shortest_edge": 96}),
        embed_dim=[16, 32, 32],
        num_heads=[1, 2, 2],
        depth=[1, 2, 3],
    ),
    "data2vec": lambda: _classifier(
        "Data2VecVision",
        t.BeitImageProcessorPil(**_SQUARE),
        image_size=96,
        **_TRANSFORMER,
    ),
    "dinov2-registers": lambda: _classifier(
        "Dinov2WithRegisters",
        _cropping("Bit", 98),
        image_size=98,
        patch_size=14,
        **_TRANSFORMER,
    ),
    "efficientnet": lambda: _classifier(
        "EfficientNet",
        t.EfficientNetImageProcessorPil(**_SQUARE),
        image_size=96,
        width_coefficient=0.5,
        depth_coefficient=0.5,
        hidden_dim=640,
    ),
    "focalnet": lambda: _classifier(
        "FocalNet",
        _cropping("Bit"),
        image_size=96,
        embed_dim=16,
        depths=[1, 1],
        hidden_sizes=[16, 32],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    "hgnet-v2": lambda: _classifier(
        "HGNetV2", t.ConvNextImageProcessorPil(size={"shortest_edge": 96}), **_HGNET
    ),
    "hiera": lambda: _classifier(
        "Hiera",
        _cropping("Bit", 64),
        image_size=[64, 64],
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
    ),
    "mobilenet-v1": lambda: _classifier(
        "MobileNetV1", _cropping("MobileNetV1"), image_size=96, depth_multiplier=0.25
    ),
    "mobilevit-v2": lambda: _classifier(
        "MobileViTV2", _cropping("MobileViT"), image_size=96, width_multiplier=0.25
    ),
    "poolformer": lambda: _classifier(
        "PoolFormer",
        t.PoolFormerImageProcessorPil(**_CROPPED),
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
    ),
    "pvt-v2": lambda: _classifier(
        "PvtV2",
        t.PvtImageProcessorPil(**_SQUARE),
        image_size=96,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        mlp_ratios=[2, 2, 2, 2],
    ),
    "regnet": lambda: _classifier(
        "RegNet",
        t.ConvNextImageProcessorPil(size={"shortest_edge": 96}),
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        groups_width=4,
    ),
    "swiftformer": lambda: _classifier(
        "SwiftFormer",
        t.ViTImageProcessorPil(**_SQUARE),
        image_size=96,
        depths=[1, 1, 1, 1],
        embed_dims=[8, 16, 24, 32],
    ),
    "swin-v2": lambda: _classifier(
        "Swinv2",
        t.ViTImageProcessorPil(**_SQUARE),
        image_size=96,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    "vit-msn": lambda: _classifier(
        "ViTMSN", t.ViTImageProcessorPil(**_SQUARE), image_size=96, **_TRANSFORMER
    ),
}


def _levit():
    config = t.LevitConfig(
        image_size=96,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[1, 2, 2],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        id2label=CLASSES,
    )
    processor = t.LevitImageProcessorPil(**_CROPPED)
    return t.LevitForImageClassificationWithTeacher(config), processor


MORE_CLASSIFIERS["levit"] = _levit


def resnet(depths=(2, 2, 2, 2), **config):
    """A ResNet-18 of a quarter of its width."""
    return _classifier(
        "ResNet",
        t.ConvNextImageProcessorPil(size={"shortest_edge": 96}),
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 128],
        depths=list(depths),
        layer_type="basic",
        **config,
    )


def deformable_detr():
    """Deformable DETR on one feature map: an export takes longer with each."""
    return _detr("DeformableDetr", ["stage4"], num_feature_levels=1)


def rf_detr(kind="ObjectDetection"):
    """RF-DETR, whose processor needs torchvision: its file is written by hand."""
    backbone = t.RfDetrDinov2Config(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=128,
        patch_size=16,
        num_windows=2,
        out_features=["stage2", "stage4"],
    )
    config = t.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=20,
        id2label=CLASSES,
        group_detr=1,
    )
    return getattr(t, f"RfDetrFor{kind}")(config)


def enlivened(model, seed=0):
    """The model with weights that let each pixel matter, whatever the depth.

    Squeeze-and-excite halves what comes in, and takes larger ones. RT-DETR begins with
    norms around 0, which leave queries as good as equal, and their order to rounding.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    gain = 6 if "efficientnet" in model.config.model_type else 1.5
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim > 1:
            spread = (gain / max(1, tensor[0].numel())) ** 0.5
            tensor.normal_(0, spread, generator=generator)
    return model.eval()


def spread_out(model, side):
    """A classifier whose logits differ by about one, so that scores tell classes."""
    noise = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(noise).logits
    factor = 1 / logits.std(dim=1).mean()
    for name, tensor in model.state_dict().items():
        if "classifier" in name and tensor.is_floating_point():
            tensor.mul_(factor)
    return model


def saved(folder, model, processor=None):
    """Write a model, and what prepares its images, as transformers does."""
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder
