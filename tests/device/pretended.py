"""A device that is not there: tensors that say they lie elsewhere, and are CPU tensors inside.

Most machines that run these tests have no GPU, and the commonest bug that only a GPU shows is a tensor that was left on
the CPU. Here such a mixture raises, as it would there, and all other arithmetic is the CPU's, so results must be equal
to the last bit. What it cannot show: kernels that round or fail otherwise, streams, memory, anything named "cuda".
"""

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "pretended"

POSSIBLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
"""Whether this torch lets Python make a device."""

# Copies go from one device to another; indices in square brackets may lie on the CPU.
_ACROSS = ("aten::copy_", "aten::_to_copy", "aten::index")


class Elsewhere(torch.Tensor):
    """A tensor on the pretended device; ``here`` holds its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=torch.device(DEVICE, 0),
            requires_grad=here.requires_grad,
        )
        made.here = here
        return made

    def tolist(self) -> list[Any]:  # refused to tensors of a class of their own
        return self.here.tolist()  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Elsewhere({self.here!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **kwargs or {})
        if func == torch.Tensor.data.__set__:  # the only thing that changes values and is no operator
            args[0].here = args[1].here
        return out

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Sees what has no tensor argument, too: ``torch.zeros(3, device=...)``."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    there = [a for a in tensors if isinstance(a, Elsewhere)]
    if name not in _ACROSS and there and any(a.dim() for a in tensors if not isinstance(a, Elsewhere)):
        raise RuntimeError(f"{name}: a tensor on the CPU among tensors on another device")
    device = kwargs.get("device")
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
        goes = torch.device(device).type == DEVICE
    else:
        goes = isinstance(args[0], Elsewhere) if name == "aten::copy_" else bool(there)
    out = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if name.endswith("_") and not name.endswith("__") and isinstance(args[0], Elsewhere):
        return args[0]  # in place: the tensor itself
    return tree_map(_outer, out) if goes else out


def _inner(a: Any) -> Any:
    return a.here if isinstance(a, Elsewhere) else a


def _outer(a: Any) -> Any:
    return Elsewhere(a) if isinstance(a, torch.Tensor) and not isinstance(a, Elsewhere) else a


@cache
def _register() -> None:
    class Module(backend_registration._DummyBackendModule):  # type: ignore[misc]
        """``torch.pretended``. Not available, or torch would look for streams."""

        def is_available(self) -> bool:
            return False

        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return []

    class Hook(backend_registration._DummyPrivateUse1Hook):  # type: ignore[misc]
        """Not available, or torch would take it for the machine's accelerator in whatever test comes next."""

        def is_available(self) -> bool:
            return False

    backend_registration._setup_privateuseone_for_python_backend(DEVICE, backend_module=Module(), hook=Hook())


@contextlib.contextmanager
def pretended() -> Iterator[str]:
    """Inside, ``device="pretended"`` works; gives that name."""
    _register()
    # A parameter cannot change what it holds from a tensor to one of another class: modules get new ones.
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # torch.tensor(..., device=...) makes a CPU tensor and moves it where we can see that.
    torch._C._set_only_lift_cpu_tensors(True)
    # Tensors of a class of their own cannot be cut in inference mode.
    inference_mode, torch.inference_mode = torch.inference_mode, torch.no_grad
    try:
        with _Mode():
            yield DEVICE
    finally:
        torch.inference_mode = inference_mode
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
