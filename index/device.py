"""The only import of FAISS, on first use; what can live on the GPU, putting it there and bringing it back."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias

from index.errors import DeviceError, SpecError
from index.spec import GPU_LIST_LIMIT, IndexSpec

Device: TypeAlias = Literal["cpu", "cuda"]
Wish: TypeAlias = Literal["auto", "cpu", "cuda"]

GPU_RESULT_LIMIT = 2048  # FAISS on a GPU returns no more neighbors a query
CPU_PACKAGES = ("faiss-cpu",)
GPU_PACKAGES = ("faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11")
CPU_REMEDY = "pip install 'crossmodal-retrieval[cpu]'"
GPU_REMEDY = "pip uninstall faiss-cpu, then pip install 'crossmodal-retrieval[gpu]'"


@cache
def load_faiss() -> Any:
    """Return the FAISS module, imported at the first call.

    Raises:
        DeviceError: it is not installed, or both its distributions are, which overwrite each other.
    """
    if _installed(CPU_PACKAGES) and _installed(GPU_PACKAGES):
        raise DeviceError(
            "faiss-cpu and faiss-gpu are both installed and overwrite each other: "
            f"pip uninstall faiss-cpu faiss-gpu, then {CPU_REMEDY} or [gpu]"
        )
    try:
        import faiss
    except ImportError as error:
        raise DeviceError(f"FAISS cannot be imported ({error}): {CPU_REMEDY}, or [gpu] for CUDA") from error
    return faiss


def chosen_device(wish: Wish) -> Device:
    """Return where an index is to live: what was wished, or for `auto` the GPU where FAISS can use one.

    Raises:
        DeviceError: `cuda` was wished and is not there; the reason is named. `auto` falls back to the CPU.
        SpecError: no such device.
    """
    if wish not in {"auto", "cpu", "cuda"}:
        raise SpecError(f"no device {wish!r}: take auto, cpu or cuda")
    if wish == "cpu" or (wish == "auto" and not _installed(GPU_PACKAGES)):
        return "cpu"
    reason = _why_no_gpu()
    if reason and wish == "cuda":
        raise DeviceError(reason)
    return "cpu" if reason else "cuda"


def checked_for_gpu(spec: IndexSpec) -> IndexSpec:
    """Return the spec if a GPU can hold its kind and sizes.

    Raises:
        DeviceError: a graph, or more lists than a GPU looks into.
    """
    if spec.kind == "hnsw":
        raise DeviceError("FAISS has no hnsw on a GPU: take exact, ivf or ivfpq, or device='cpu'")
    if spec.lists > GPU_LIST_LIMIT:
        raise DeviceError(f"{spec.lists} lists, and a GPU looks into {GPU_LIST_LIMIT} at most: take fewer lists")
    if spec.kind == "ivfpq" and spec.code_bits != 8:  # noqa: PLR2004 - the one size there
        raise DeviceError(f"codes of {spec.code_bits} bits, and a GPU has only those of 8: leave code_bits 8")
    return spec


def to_gpu(index: Any) -> Any:
    """Return a copy of a FAISS index on the first GPU.

    Raises:
        DeviceError: the GPU cannot hold it; the reason is FAISS's own.
    """
    faiss = load_faiss()
    options = faiss.GpuClonerOptions()
    options.useFloat16 = isinstance(index, faiss.IndexIVFPQ)  # tables of 56 codes and more fit no other way
    with errors_of("cuda"):
        return faiss.index_cpu_to_gpu(_resources(), 0, index, options)


def to_cpu(index: Any) -> Any:
    """Return a copy of a FAISS index of the GPU in main memory, as it must be to be written."""
    return load_faiss().index_gpu_to_cpu(index)


@contextmanager
def errors_of(device: Device) -> Iterator[None]:
    """Turn what FAISS raises for want of GPU memory, and for what a GPU cannot hold, into a DeviceError."""
    try:
        yield
    except RuntimeError as error:
        if device == "cpu":
            raise
        words = " ".join(str(error).split())
        memory = "alloc fail" in words or "out of memory" in words
        what = "the GPU has not enough memory for this index" if memory else "the GPU cannot hold this index"
        raise DeviceError(f"{what} ({words[-200:]}): take kind ivfpq, fewer rows or device='cpu'") from error


@cache
def _resources() -> Any:
    """Return FAISS's memory and streams on the GPU, shared by all indexes because they reserve a good part of it."""
    return load_faiss().StandardGpuResources()


def _why_no_gpu() -> str:
    """Return why FAISS can use no GPU here, with the remedy, or an empty string."""
    try:
        faiss = load_faiss()
    except DeviceError as error:
        return str(error)
    if not hasattr(faiss, "StandardGpuResources"):
        return f"this FAISS {faiss.__version__} was built without CUDA: {GPU_REMEDY}"
    if faiss.get_num_gpus() == 0:
        return "FAISS sees no CUDA device: check nvidia-smi and CUDA_VISIBLE_DEVICES, or take device='cpu'"
    return ""


def _installed(packages: tuple[str, ...]) -> bool:
    return any(_version(package) for package in packages)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
