"""`AutoModel`: an id in, a model out, by the best backend that works here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import attrs

from inference_models.call import BackendName, Call, Pairs, Secret
from inference_models.card import Bundle
from inference_models.images import read_images
from inference_models.interfaces import Backend
from inference_models.load import build, load
from inference_models.negotiation import find
from inference_models.negotiation.explain import Explanation
from inference_models.registry import installed
from inference_models.tasks import (
    ClassificationModel,
    InstanceSegmentationModel,
    KeyPointsDetectionModel,
    MultiLabelClassificationModel,
    ObjectDetectionModel,
)
from inference_models.vision_language import VisionLanguageModel

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class _Parameters(TypedDict, total=False):
        backend: BackendName | None
        device: Any
        quantization: str | None
        batch_size: int | tuple[int, ...] | None
        model_type: str | None
        labels: Sequence[str | None] | None
        derive: bool | None
        allow_licenses: Sequence[str] | None
        allow_untrusted_packages: bool
        weights_provider: str | None
        sha256: str | None
        api_key: str | None
        revision: str | None
        weights_provider_extra_headers: Mapping[str, str] | None
        weights_provider_extra_query_params: Pairs | None


class AutoModel:
    """Finds a model's weights and runs them with the best backend that works here."""

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["object-detection"],
        **parameters: Unpack[_Parameters],
    ) -> ObjectDetectionModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["instance-segmentation"],
        **parameters: Unpack[_Parameters],
    ) -> InstanceSegmentationModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["keypoint-detection"],
        **parameters: Unpack[_Parameters],
    ) -> KeyPointsDetectionModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["classification"],
        **parameters: Unpack[_Parameters],
    ) -> ClassificationModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["multi-label-classification"],
        **parameters: Unpack[_Parameters],
    ) -> MultiLabelClassificationModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["vision-language"],
        **parameters: Unpack[_Parameters],
    ) -> VisionLanguageModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: str | None = ...,
        **parameters: Unpack[_Parameters],
    ) -> Any: ...

    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: str | None = None,
        backend: BackendName | None = None,
        device: Any = None,
        quantization: str | None = None,
        batch_size: int | tuple[int, ...] | None = None,
        model_type: str | None = None,
        labels: Sequence[str | None] | None = None,
        derive: bool | None = None,
        allow_licenses: Sequence[str] | None = None,
        allow_untrusted_packages: bool = False,
        weights_provider: str | None = None,
        sha256: str | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        weights_provider_extra_headers: Mapping[str, str] | None = None,
        weights_provider_extra_query_params: Pairs | None = None,
        **unknown: Any,
    ) -> Any:
        """Load a model by its id, a folder with a card, or a file of weights.

        task              refuse a model of another task
        backend           name, `Backend`, or several of these, in any order, of which
                          the best that works is used; else the best of all
        device            "cpu", "cuda", "cuda:1", "mps", or a `torch.device`
        quantization      "fp32", "fp16", "bf16" or "int8"; or what a backend adds
        batch_size        the most images that are prepared and run at a time; or
                          (min, max), or (min, best, max), of which the best is used:
                          what is built takes this range
        model_type        what a file of weights is, where it does not say so itself:
                          the id of a known model, or the name of an architecture
        labels            class names, in place of the card's; None for a column that
                          is never returned
        derive            True: build a better artifact first, where a backend can;
                          False: build none, even where nothing else runs
        allow_licenses    refuse a model under any other, before its weights are fetched
        allow_untrusted_packages
                          run programs and engines that were not made here, too
        weights_provider  ask this one alone
        sha256            what the one file of a URL or a path has to have
        api_key, revision, weights_provider_extra_headers, …_query_params
                          for the provider's server alone

        What is named never falls back; what is left open falls back with one WARNING.
        Raises `ModelNotFound`, `NoBackend`, `DownloadFailed`, `InvalidWeights`,
        `InvalidCard`, `LicenseNotAllowed`, and `InvalidOption` (a `TypeError`) for a
        parameter that is unknown, has a wrong value or means nothing for this model,
        and for a model of another task.
        """
        given = Secret(locals())
        # Whoever prints a traceback's locals, as Sentry and rich do, sees no key.
        del api_key, unknown
        del weights_provider_extra_headers, weights_provider_extra_query_params
        call = Call.of(given, cls.from_pretrained)
        search = call.search(model_id_or_path)
        return load(search, call.recipe(model_id_or_path, search.found))

    @classmethod
    def explain(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: str | None = None,
        backend: BackendName | None = None,
        device: Any = None,
        quantization: str | None = None,
        batch_size: int | tuple[int, ...] | None = None,
        model_type: str | None = None,
        labels: Sequence[str | None] | None = None,
        derive: bool | None = None,
        allow_licenses: Sequence[str] | None = None,
        allow_untrusted_packages: bool = False,
        weights_provider: str | None = None,
        sha256: str | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        weights_provider_extra_headers: Mapping[str, str] | None = None,
        weights_provider_extra_query_params: Pairs | None = None,
        **unknown: Any,
    ) -> Explanation:
        """What would run here, in order, and why not the rest.

        Fetches no weights, unless the id means one file of them on a server (a URL, or
        a file of the Hub or of another publisher), and imports no runtime, unless a
        file of weights is named that only one can read; takes what `from_pretrained`
        takes.
        """
        given = Secret(locals())
        del api_key, unknown
        del weights_provider_extra_headers, weights_provider_extra_query_params
        search = Call.of(given, cls.explain).search(model_id_or_path)
        return Explanation.of(search.card, search.negotiation(), search.registry)

    @classmethod
    def compile(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        backend: str | Backend,
        device: Any = None,
        quantization: str | None = None,
        batch_size: int | tuple[int, ...] | None = None,
        calibration: Any = None,
        task: str | None = None,
        model_type: str | None = None,
        labels: Sequence[str | None] | None = None,
        allow_licenses: Sequence[str] | None = None,
        allow_untrusted_packages: bool = False,
        weights_provider: str | None = None,
        sha256: str | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        weights_provider_extra_headers: Mapping[str, str] | None = None,
        weights_provider_extra_query_params: Pairs | None = None,
        **unknown: Any,
    ) -> Bundle:
        """Build now what a backend runs best, and keep it; `from_pretrained` finds it.

        backend      whose format is built
        device       one that is here, or a kind of device that is not, as the backend
                     names it; what is built for another is judged where it first runs
        batch_size   the largest batch, or (min, max), or (min, best, max); what was
                     built for others is kept, and built for these beside it
        calibration  images, in any form that models take, on which what is built, or
                     was built before, is compared with its source; by default pictures
                     of the library's, once

        The rest is that of `from_pretrained`. Returns what lies in the cache, built
        before or now; where several would do, models load what was used last. Where no
        precision is named, half precision that differs too much from its source falls
        back to full precision with one WARNING. Raises `InvalidOption` where the
        backend needs nothing built, and what `from_pretrained` raises.
        """
        derive = True  # one of the keywords that `Call` takes from these locals
        given = Secret(locals())
        del api_key, unknown
        del weights_provider_extra_headers, weights_provider_extra_query_params
        search = Call.of(given, cls.compile).search(model_id_or_path)
        pictures = [] if calibration is None else read_images(calibration)
        constraints = attrs.evolve(search.constraints, building=True)
        return build(attrs.evolve(search, constraints=constraints), pictures)

    @classmethod
    def models(cls) -> list[str]:
        """Every id and alias that installed packs and card folders name, sorted."""
        registry = installed()
        ids = find.known_ids(find.providers(registry))
        return sorted({*ids, *find.elsewhere(registry)})
