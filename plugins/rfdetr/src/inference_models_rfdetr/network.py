"""RF-DETR as a torch module, under the parameter names of its checkpoints.

Robinson et al., "RF-DETR: Neural Architecture Search for Real-Time Detection
Transformers", arXiv:2511.09554.
"""

from __future__ import annotations

from torch import Tensor, nn

from inference_models_rfdetr.decoder import MLP, Transformer, refine
from inference_models_rfdetr.encoder import Encoder
from inference_models_rfdetr.key_points import KeyPointHead, KeyPointTransformer
from inference_models_rfdetr.layout import Layout
from inference_models_rfdetr.projector import Projector
from inference_models_rfdetr.segmentation import SegmentationHead


class RfDetr(nn.Module):
    """Pixels (B, 3, S, S) -> logits (B, Q, C), boxes (B, Q, 4) and objectness (B, n).

    One that segments gives mask logits (B, Q, S / 4, S / 4), too. Pixels are
    normalised; boxes are cxcywh as shares of the image, and may leave it.
    The queries go where the cells with the highest objectness are, so that cells which
    are nearly equal can change places and move the rest.
    """

    def __init__(
        self, layout: Layout, transformer: type[Transformer] = Transformer
    ) -> None:
        super().__init__()
        encoder = nn.ModuleDict({"encoder": Encoder(layout)})
        backbone = {"encoder": encoder, "projector": Projector(layout)}
        self.backbone = nn.ModuleList([nn.ModuleDict(backbone)])
        self.transformer = transformer(layout)
        self.query_feat = nn.Embedding(layout.queries, layout.hidden)
        self.refpoint_embed = nn.Embedding(layout.queries, 4)
        self.class_embed = nn.Linear(layout.hidden, layout.classes)
        self.bbox_embed = MLP(layout.hidden, layout.hidden, 4, 3)
        self.segments = layout.segments
        if layout.segments:
            self.segmentation_head = SegmentationHead(layout)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        backbone = self.backbone[0]
        maps = backbone["projector"](backbone["encoder"]["encoder"](pixels))
        queries, boxes, objectness = self.transformer(
            maps, self.query_feat.weight, self.refpoint_embed.weight
        )
        boxes = refine(boxes, self.bbox_embed(queries))
        found = self.class_embed(queries), boxes, objectness
        if not self.segments:
            return found
        return *found, self.segmentation_head(maps[0], queries)


class KeyPointRfDetr(RfDetr):
    """Pixels (B, 3, S, S) -> as `RfDetr`, and points (B, Q, slots, 8) behind.

    Points are as `key_points.KeyPointHead` lays them. They have feature maps of their
    own, and say something of the classes, too.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, KeyPointTransformer)
        self.backbone[0]["cross_attn_projector"] = Projector(layout)
        self.keypoint_embed = KeyPointHead(layout)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        backbone = self.backbone[0]
        features = backbone["encoder"]["encoder"](pixels)
        projectors = backbone["projector"], backbone["cross_attn_projector"]
        maps = [level for projector in projectors for level in projector(features)]
        carried, boxes, objectness = self.transformer(
            maps, self.query_feat.weight, self.refpoint_embed.weight
        )
        points = self.keypoint_embed.points(carried[:, :, 1:], boxes)
        queries = carried[:, :, 0]
        logits = self.class_embed(queries) + self.keypoint_embed.logits(points)
        return logits, refine(boxes, self.bbox_embed(queries)), objectness, points


def network(layout: Layout) -> RfDetr:
    """The network of a layout."""
    return KeyPointRfDetr(layout) if layout.keypoints else RfDetr(layout)
