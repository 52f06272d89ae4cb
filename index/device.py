"""The only import of FAISS, on first use; counting GPUs, choosing a device, and copying FAISS indexes to a GPU."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

from index.errors import DeviceError, SpecError

Device: TypeAlias = Literal["cpu", "cuda"]
DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]

GPU_RESULT_LIMIT = 2048  # FAISS on a GPU returns no more neighbors a query
CPU_PACKAGES = ("faiss-cpu",)
GPU_PACKAGES = ("faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11")
INSTALL_CPU = "pip install 'crossmodal-retrieval[cpu]'"
INSTALL_GPU = "pip uninstall faiss-cpu, then pip install 'crossmodal-retrieval[gpu]'"


@cache
def count_gpus() -> int:
    """Return the number of CUDA devices that this process may use; 0 without a driver, or where it fails.

    The driver itself is asked, so neither torch nor FAISS is loaded, and CUDA_VISIBLE_DEVICES holds as of the first
    call. CUDA Driver API, sections 6.3 (cuInit) and 6.5 (cuDeviceGetCount).
    """
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):  # no driver, or a library of this name without these functions
        return 0
    return 0 if failed else count.value


def faiss_problem() -> str:
    """Return that FAISS is not installed, and the command, or an empty string; it is looked for and not loaded."""
    if sys.modules.get("faiss") or find_spec("faiss"):
        return ""
    return f"FAISS is not installed. Run {INSTALL_CPU}, or [gpu] for CUDA."


@cache
def load_faiss() -> Any:
    """Return the FAISS module; a DeviceError if neither, or both, of its distributions are installed."""
    if any(map(_is_installed, CPU_PACKAGES)) and any(map(_is_installed, GPU_PACKAGES)):
        raise DeviceError(
            "faiss-cpu and faiss-gpu are both installed and overwrite each other. "
            f"Run pip uninstall faiss-cpu faiss-gpu, then {INSTALL_CPU}, or [gpu] for CUDA."
        )
    if faiss_problem():
        raise DeviceError(faiss_problem())
    try:
        import faiss
    except ImportError as error:
        raise DeviceError(f"FAISS cannot be imported ({error}). Run {INSTALL_CPU}, or [gpu] for CUDA.") from error
    return faiss


def resolve_device(choice: DeviceChoice) -> Device:
    """Return the device of an index: the choice, or for `auto` the GPU where FAISS can use one, else the CPU.

    A DeviceError with the reason if `cuda` is not available; a SpecError if there is no such device.
    """
    if choice not in {"auto", "cpu", "cuda"}:
        raise SpecError(f"There is no device {choice!r}. Use auto, cpu or cuda.")
    if choice == "cpu" or (choice == "auto" and not _may_use_gpu()):
        return "cpu"
    try:
        _check_gpu()
    except DeviceError:
        if choice == "cuda":
            raise
        return "cpu"
    return "cuda"


def copy_to_gpu(index: Any, *, float16: bool) -> Any:
    """Return a copy of a FAISS index on the first GPU, its lookup tables in half precision if `float16`.

    A DeviceError with FAISS's reason if the GPU cannot hold it.
    """
    faiss = load_faiss()
    options = faiss.GpuClonerOptions()
    options.useFloat16 = float16
    with translate_gpu_errors("cuda"):
        return faiss.index_cpu_to_gpu(_gpu_resources(), 0, index, options)


@contextmanager
def translate_gpu_errors(device: Device) -> Iterator[None]:
    """Raise a DeviceError where FAISS reports that a GPU lacks memory or cannot hold an index."""
    try:
        yield
    except RuntimeError as error:
        if device == "cpu":
            raise
        text = " ".join(str(error).split())
        out_of_memory = "alloc fail" in text or "out of memory" in text
        problem = "The GPU has not enough memory for this index" if out_of_memory else "The GPU cannot hold this index"
        raise DeviceError(f"{problem} ({text[-200:]}). Use kind ivfpq, fewer rows or device='cpu'.") from error


@cache
def _gpu_resources() -> Any:
    """Return FAISS's memory and streams on the GPU: one for all indexes, since each reserves much of the memory."""
    return load_faiss().StandardGpuResources()


def _check_gpu() -> None:
    """Raise a DeviceError where FAISS cannot use a GPU, with the remedy."""
    faiss = load_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise DeviceError(f"This FAISS {faiss.__version__} was built without CUDA. Run {INSTALL_GPU}.")
    if faiss.get_num_gpus() == 0:
        raise DeviceError("FAISS finds no CUDA device. Check nvidia-smi and CUDA_VISIBLE_DEVICES, or use device='cpu'.")


def _may_use_gpu() -> bool:
    """Whether there are a GPU and a FAISS that was built for one. Where there is no GPU, no package is looked up."""
    return count_gpus() > 0 and any(map(_is_installed, GPU_PACKAGES))


def _is_installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version  # takes longer than a search of a small index

    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
