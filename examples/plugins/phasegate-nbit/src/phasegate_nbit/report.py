"""What quantizing cost each layer, read from a checkpoint and written beside it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

FILE = "quantization-error.json"
_NAMES = ("nbit", "phasegate-nbit:nbit")
_EXPERTS = re.compile(r"layers\.(\d+)\..*experts\.(gate_up_proj|down_proj)$")


def write_report(stage: Path) -> Path | None:
    """Write how far the quantized experts of a stage are from the weights they were made of; None, and no file, where
    this package quantizes none.

    ``error`` is ||W - W_q||^2 / ||W||^2, ``snr`` the same in decibels (null where nothing is lost), ``edge`` the share
    of weights at the largest code; by layer and matrix, and ``error`` over all.
    """
    checkpoint = stage / "checkpoint"
    record = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("phasegate_quantizer")
    if record is None or record["use"] not in _NAMES:
        return None
    layers, total = _layers(checkpoint, record["options"])
    if not layers:
        return None
    told = {"quantizer": record, "error": total, "layers": layers}
    path = stage / FILE
    path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _layers(checkpoint: Path, options: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], float]:
    from safetensors import safe_open

    from .options import NBitConfig
    from .quantizer import NBit

    quantizer, most = NBit(NBitConfig(**options)), 2 ** (NBitConfig(**options).bits - 1) - 1
    layers: dict[str, dict[str, Any]] = {}
    lost = whole = 0.0
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                found = _EXPERTS.search(name)
                if found is None:
                    continue
                weight = tensors.get_tensor(name).float()
                codes = quantizer.encode(weight)
                gone, size = float((weight - codes.decode()).square().sum()), float(weight.square().sum())
                lost, whole = lost + gone, whole + size
                layers.setdefault(found[1], {})[found[2]] = {
                    "edge": float((codes.trits.abs() == most).float().mean()),
                    "error": gone / size if size else 0.0,
                    "snr": 10 * math.log10(size / gone) if gone and size else None,
                }
    return layers, lost / whole if whole else 0.0
