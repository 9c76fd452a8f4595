"""The decoder as a generation loop calls it: what one call leaves to the next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inference_models import Array, Operations, Session


class Beams:
    """Steps of the decoder for B prompts; `states` are the encoder's outputs."""

    def __init__(
        self,
        decoder: Session,
        states: Mapping[str, Array],
        prompts: int,
        ops: Operations,
    ) -> None:
        self._decoder = decoder
        self._states = dict(states)
        self._prompts = prompts
        self._beams = 1
        self._host = ops.host

    def __call__(self, tokens: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Tokens (R, 1), and the row of the call before that each goes on with.

        Rows are prompts by beams, B times K. Returns logits float32 (R, V).
        """
        shape = (self._prompts, -1)
        first = np.arange(self._prompts, dtype=np.int64)[:, None] * self._beams
        own = order.reshape(shape) - first
        outputs = self._decoder(
            input_ids=tokens.reshape(shape), order=own, **self._states
        )
        logits = self._host(outputs.pop("logits"))
        self._states.update(outputs)
        self._beams = own.shape[1]
        return logits.reshape(len(tokens), -1)
