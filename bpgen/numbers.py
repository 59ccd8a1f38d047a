"""What is handed over as numbers, from tasks and from Python callers, as one kind of tensor."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpgen.errors import BpgenError, require


def dense(value: Any, what: str) -> Tensor:
    """A dense tensor of real numbers, of a tensor, an array or nested lists; a tensor is itself.

    Raises:
        BpgenError: it is none, with what was expected.
    """
    if not isinstance(value, Tensor):
        try:
            value = np.ascontiguousarray(value)  # lists of arrays, and strides that torch does not know,
            value = value.astype(value.dtype.newbyteorder("="), copy=False)  # as little as another order of bytes
            value = value.astype(np.float64) if value.dtype == np.longdouble else value  # or more of them
            value = torch.from_numpy(value if value.flags.writeable else value.copy())
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BpgenError(f"{what} must be numbers (a tensor, a numpy array or nested lists): {reason}") from None
    require(value.layout == torch.strided, f"{what} is a sparse tensor: give .to_dense().")
    require(not value.is_complex(), f"{what} is complex ({value.dtype}): a network takes real numbers, e.g. .abs().")
    require(not value.is_quantized, f"{what} is quantized ({value.dtype}): give .dequantize().")
    return value


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A number as a tensor without dimensions, which torch takes in half the time of a Python number; it is kept."""
    return value if isinstance(value, Tensor) else _scalar(value, like.dtype, like.device)


@lru_cache(maxsize=256)
def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)
