"""A PyTensor operation around a numba function that returns a log density and its gradients.

Batched linear algebra and row-by-row likelihoods written as graphs take numba many seconds to compile; as
one operation they take one, and PyTensor keeps the result on disk.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_and_cache_key

__all__ = ["DensityOp"]


class DensityOp(Op):  # type: ignore[misc]
    """Inputs: arrays to differentiate by, then the packed data; outputs: value (), then the gradients.

    Subclasses set `density`, a function in numba's subset of Python that calls nothing outside its own module, and
    `differentiable`, how many of its leading inputs it returns gradients for.
    """

    __props__ = ()
    density: ClassVar[Callable[..., Any]]
    differentiable: ClassVar[int]

    def make_node(self, *inputs: Any) -> Apply:
        """Return the node."""
        tensors = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, tensors, [pt.dscalar(), *(x.type() for x in tensors[: self.differentiable])])

    def perform(self, node: Apply, inputs: list[Any], output_storage: list[Any]) -> None:
        """Evaluate in plain Python; for debugging."""
        for storage, result in zip(output_storage, type(self).density(*inputs), strict=True):
            storage[0] = np.asarray(result)

    def infer_shape(self, node: Apply, shapes: list[Any]) -> list[Any]:
        """Gradients have the shapes of what they are taken by."""
        return [(), *shapes[: self.differentiable]]

    def pullback(self, inputs: list[Any], outputs: list[Any], cotangents: list[Any]) -> list[Any]:
        """Chain rule for the value; the gradients' own derivatives are not defined."""
        if not all(isinstance(c.type, DisconnectedType) for c in cotangents[1:]):
            raise NotImplementedError("second derivatives of this log density are not available")
        through = [cotangents[0] * gradient for gradient in outputs[1:]]
        return [*through, *(disconnected_type() for _ in inputs[self.differentiable :])]

    L_op = pullback

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Only the leading inputs are differentiated."""
        return [[i < self.differentiable] * len(node.outputs) for i in range(len(node.inputs))]


@register_funcify_and_cache_key(DensityOp)  # type: ignore[untyped-decorator]
def _compiled(op: DensityOp, **kwargs: Any) -> Any:
    # PyTensor keeps the compiled function on disk under this key. The source is part of it, with all that the
    # function may call: a key made of the operation's properties alone would keep serving an earlier version.
    source = inspect.getsource(sys.modules[type(op).density.__module__])
    return numba_njit(type(op).density), sha256(source.encode()).hexdigest()
