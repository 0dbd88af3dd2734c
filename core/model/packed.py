"""Packed models: experts at five weights to a byte, everything else as it was; for inference.

A folder holds ``config.json``, generation configuration, tokenizer and companions; ``model.packed.safetensors`` with
all weights but the stacked experts', under a name that plain ``from_pretrained`` does not take, which would fill the
experts at random; ``experts/expert_{e:03d}.trit``; and ``packed.json``, which lists the digest of every
other file and its own.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from ...evals.foreign import refuse_code, strictly
from ...registry.atomic import sync_file
from ...registry.current import using
from ...registry.errors import ConfigError, StoreError
from . import modeling  # noqa: F401  registers phasegate_moe
from .companions import attach, companions_of, load_companions, rebind, save_companions, trunk_digest
from .loading import align_generation
from .parameters import expert_parameters, layer_of
from .quantization import FIELD, encode_experts
from .quantizer import Codes
from .seeding import seeded
from .trit_file import DOWN, GATE_UP, ExpertCodes, bits_per_weight, read_expert, write_expert

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

INDEX = "packed.json"
_EXPERTS = "experts"
_VARIANT = "packed"
_WEIGHTS = f"model.{_VARIANT}.safetensors"
_FORMAT = 1
_KINDS = {"gate_up_proj": GATE_UP, "down_proj": DOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedReport:
    """What packing wrote: bits per weight of the experts' trits and, apart from them, of their scales; ``bytes`` of the
    expert files, to compare with what the same ``weights`` take in fp16 and fp32."""

    folder: Path
    experts: int
    weights: int
    packed_bits: float
    scale_bits: float
    bytes: int

    @property
    def fp16_bytes(self) -> int:
        """Bytes of the experts' weights in fp16 (or bf16)."""
        return 2 * self.weights

    @property
    def fp32_bytes(self) -> int:
        """Bytes of the experts' weights in fp32."""
        return 4 * self.weights


def pack_model(folder_in: str | os.PathLike[str], folder_out: str | os.PathLike[str], registry: Any) -> PackedReport:
    """Pack the model and tokenizer of ``folder_in``, whose experts are quantized, into the new ``folder_out``; what its
    experts were cloned from stays behind."""
    from .loading import load_model as read
    from .tokenizer import load_tokenizer

    model = read(folder_in, registry)
    attach(model, "origin", None)
    return save_packed(model, load_tokenizer(folder_in), folder_out, encode_experts(model))


def save_packed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | os.PathLike[str],
    codes: Mapping[str, Codes],
) -> PackedReport:
    """Write a model to a new folder with ``codes``, by parameter name, in place of its stacked expert weights.

    Raises ``ConfigError`` where the codes are not those of all experts, or where the model has a safety anchor, and
    ``StoreError`` where nothing can be written or ``folder`` exists and is not empty; nothing half-written stays.
    """
    if "anchor" in companions_of(model):
        raise ConfigError(
            "The model has a safety anchor, which a packed model cannot hold in place; export it unpacked with "
            "'platform export'."
        )
    check_codes(model, codes)
    experts = split_experts(codes)
    with new_folder(folder) as partial:
        _save_trunk(model, tokenizer, partial, codes)
        (partial / _EXPERTS).mkdir()
        for expert, parts in enumerate(experts):
            write_expert(_expert_path(partial, expert), expert, parts)
        packed_bits, scale_bits = bits_per_weight(experts[0])
        index = {
            "format": _FORMAT,
            "experts": len(experts),
            "parameters": {name: str(model.state_dict()[name].dtype).removeprefix("torch.") for name in sorted(codes)},
            "packed_bits_per_weight": packed_bits,
            "scale_bits_per_weight": scale_bits,
            "trunk": trunk_digest(model) if companions_of(model) else None,
            "files": {path.relative_to(partial).as_posix(): _sha(path) for path in _files(partial)},
        }
        text = json.dumps({**index, "digest": _sealing(index)}, indent=1, sort_keys=True)
        (partial / INDEX).write_text(text + "\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in _files(partial / _EXPERTS))
    return PackedReport(
        folder=Path(folder),
        experts=len(experts),
        weights=sum(one.trits.numel() for one in codes.values()),
        packed_bits=packed_bits,
        scale_bits=scale_bits,
        bytes=size,
    )


def is_packed(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a packed model."""
    return (Path(folder) / INDEX).is_file()


def load_packed(folder: str | os.PathLike[str], registry: Any) -> PreTrainedModel:
    """Read a packed model for inference: its experts hold scale times trit in the dtype that they had, nothing
    quantizes them, nothing takes a gradient.

    ``registry`` resolves its router. Raises ``StoreError`` when a file is missing or is not as it was written.
    """
    path = Path(folder)
    index = _read_index(path)
    try:
        refuse_code(path, local_only=True)
        with using(registry), seeded(0), strictly():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False),
                trust_remote_code=False,
            )
        model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
        _fill_trunk(model, path / _WEIGHTS, set(index["parameters"]))
        _fill_experts(model, _read_experts(path, index["experts"]), index["parameters"])
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise StoreError(
            f"The packed model in '{path}' cannot be read ({' '.join(str(error).split())}); pack it again."
        ) from error
    load_companions(model, path, registry)
    rebind(model, index["trunk"])  # the model that was packed computes the same
    return model.eval().requires_grad_(False)


def read_experts(folder: str | os.PathLike[str]) -> list[ExpertCodes]:
    """The codes of all experts of a packed model, in order; ``StoreError`` when a file is not as it was written."""
    path = Path(folder)
    return _read_experts(path, _read_index(path)["experts"])


def check_codes(model: nn.Module, codes: Mapping[str, Codes]) -> None:
    """Raise ``ConfigError`` unless these are the codes of all stacked expert weights of the model, and ternary."""
    wanted = {name: tuple(model.get_parameter(name).shape) for name in expert_parameters(model)}
    given = {name: tuple(one.trits.shape) for name, one in codes.items()}
    if not wanted:
        raise ConfigError("The model has no experts to write as codes; choose a stage with quantized experts.")
    if wrong := sorted(name for name, _ in wanted.items() ^ given.items()):
        raise ConfigError(
            f"{wrong[0]} is not quantized as it lies in the model, and only where all expert weights are can they be "
            "written as codes; choose a stage after a phase that quantizes all experts."
        )
    most = max(max(int(one.trits.max()), -int(one.trits.min())) for one in codes.values())
    if most > 1:
        raise ConfigError(
            f"The quantizer of this model gives codes up to {most}, and only ternary ones (-1, 0 and 1) are written "
            "five to a byte or as differences; export the model unpacked with 'platform export'."
        )


def split_experts(codes: Mapping[str, Codes]) -> list[ExpertCodes]:
    """The codes of each expert by layer and kind, from those of stacked parameters by name.

    Raises ``ConfigError`` for parameters that no ``.trit`` file can hold.
    """
    places = {name: _place_of(name) for name in codes}
    sizes = {len(one.trits) for one in codes.values()}
    if len(set(places.values())) < len(places) or len(sizes) != 1:
        raise ConfigError(
            "The experts of this model cannot be told apart by layer and number (two parameters are one matrix, or "
            "layers have different numbers of experts), so they cannot be packed; export the model unpacked."
        )
    stacked = {
        places[name]: (one.trits.cpu().contiguous().numpy(), one.scales.cpu().contiguous().numpy())
        for name, one in codes.items()
    }
    return [
        {place: (trits[expert], scales[expert]) for place, (trits, scales) in stacked.items()}
        for expert in range(sizes.pop())
    ]


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder that becomes ``folder``, synced, where the block ends well, and goes away where it does not;
    ``StoreError`` if there is one already that is not empty."""
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"'{target}' already exists and is not an empty folder; choose a new one.")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"'{target}' cannot be made ({error.strerror}); choose another folder.") from error
    try:
        yield partial
        for path in _files(partial):
            sync_file(path)
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"'{target}' cannot be written: {error}; free space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save_trunk(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, codes: Mapping[str, Codes]
) -> None:
    align_generation(model, tokenizer)
    save_companions(model, folder)  # first: the configuration holds their digest
    kept = {name: tensor for name, tensor in model.state_dict().items() if name not in codes}
    size = sum(tensor.nbytes for tensor in kept.values()) + 1  # one file
    model.save_pretrained(folder, state_dict=kept, max_shard_size=size, save_original_format=False, variant=_VARIANT)
    config = copy.deepcopy(model.config)
    setattr(config, FIELD, None)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _read_experts(folder: Path, count: int) -> list[ExpertCodes]:
    found: list[ExpertCodes] = []
    for expert in range(count):
        number, codes = read_expert(_expert_path(folder, expert))
        if number != expert:
            raise StoreError(f"'{_expert_path(folder, expert)}' holds expert {number}; pack the model again.")
        found.append(codes)
    return found


def _fill_trunk(model: PreTrainedModel, path: Path, experts: set[str]) -> None:
    saved = load_file(path)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in saved:
            tensor.data = tensor.data.to(saved[name].dtype)
    missing, unexpected = load_model(model, path, strict=False)
    if set(missing) != experts or unexpected:
        raise ValueError(f"other weights than expected: {sorted({*missing} ^ experts) + sorted(unexpected)}")


def _fill_experts(model: PreTrainedModel, experts: Sequence[ExpertCodes], dtypes: Mapping[str, str]) -> None:
    for name, dtype in dtypes.items():
        parameter, place = model.get_parameter(name), _place_of(name)
        trits, scales = (torch.stack([torch.from_numpy(codes[place][part]) for codes in experts]) for part in (0, 1))
        # shape: (E, R, C), (E, R) or (E, 1)
        if trits.shape != parameter.shape:
            raise ValueError(f"{name} has shape {tuple(trits.shape)} instead of {tuple(parameter.shape)}")
        parameter.data = Codes(trits=trits, scales=scales).decode(getattr(torch, dtype))


def _place_of(name: str) -> tuple[int, int]:
    layer, kind = layer_of(name), _KINDS.get(name.rpartition(".")[2])
    if kind is None or layer < 0:
        raise ConfigError(
            f"{name} is no gate_up_proj or down_proj of a layer, so it cannot be packed; export the model unpacked."
        )
    return layer, kind


def _read_index(folder: Path) -> dict[str, Any]:
    """The index of a packed folder, after every file was held against it."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        sealed = isinstance(index, dict) and index.pop("digest", None) == _sealing(index)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"'{folder}' holds no packed model that can be read ({INDEX}: {error}); pack it again."
        ) from error
    if not sealed:
        raise StoreError(f"'{folder / INDEX}' was changed after it was written; copy the whole folder again.")
    if index["format"] != _FORMAT:
        raise StoreError(
            f"'{folder}' is packed in format {index['format']}, and this phasegate reads {_FORMAT}; update it or pack "
            "the model again."
        )
    for name, wanted in index["files"].items():
        try:
            found = _sha(folder / name)
        except OSError as error:
            raise StoreError(
                f"'{folder / name}' cannot be read ({error.strerror}); copy the whole folder again."
            ) from error
        if found != wanted:
            raise StoreError(f"'{folder / name}' was changed after it was packed; copy the whole folder again.")
    found_index: dict[str, Any] = index
    return found_index


def _expert_path(folder: Path, expert: int) -> Path:
    return folder / _EXPERTS / f"expert_{expert:03d}.trit"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sealing(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
