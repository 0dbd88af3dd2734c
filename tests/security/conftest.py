"""Pickles that would run code, a small foreign model to hide them in, and ways to hand both to the command."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from phasegate.core.cli.app import main
from phasegate.core.model.tokenizer import train_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()


class Bomb:
    """Makes the file ``marker`` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there only after code from a pickle, or of a checkpoint, has run."""
    return tmp_path / "ran"


@pytest.fixture
def bomb(marker: Path) -> Callable[[Path], Path]:
    """Write a pickle, in the form that its name asks for, that runs code when it is read."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in {".bin", ".pt", ".pth"}:
            torch.save({"model.norm.weight": Bomb(marker)}, path)
        elif path.suffix == ".npy":
            np.save(path, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
        else:
            path.write_bytes(pickle.dumps(Bomb(marker)))
        return path

    return write


@pytest.fixture(scope="session")
def _llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=270, **sizes)).save_pretrained(folder)
    train_tokenizer(["the cat sleeps on the mat .", "no number ."] * 9, 270).save_pretrained(folder)
    return folder


@pytest.fixture
def llama(_llama: Path, tmp_path: Path) -> Path:
    """A foreign model with its tokenizer, as transformers saves it."""
    return Path(shutil.copytree(_llama, tmp_path / "llama"))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command below ``tmp_path``, hold it to exit code 2 and one sentence on stderr, and return that."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert ended.value.code == 2, said.err
        (sentence,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in said.err and said.err.rstrip().endswith(sentence)
        return sentence

    return run


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    """Write an experiment of one step over a file of text, with ``sections`` in place of its own."""

    def write(**sections: str) -> Path:
        (tmp_path / "text.txt").write_text("the cat sleeps on the mat .\n\n" * 400, encoding="utf-8")
        given = {
            "name": "hostile",
            "size": "nano",
            "tokenizer": "{vocab_size: 270, documents: 50}",
            "data": "{sequence_length: 32, sources: {own: {use: files, paths: [text.txt], domain: general}}}",
            "phases": "{only: {use: foundation, options: {mixture: {general: 1}}, gates: {knowledge: null, "
            "load-low: null, load-high: null, plateau: null}, steps: {pretrain: {steps: 2, rows: 4}}}}",
        }
        path = tmp_path / "hostile.yaml"
        path.write_text("".join(f"{key}: {text}\n" for key, text in (given | sections).items()), encoding="utf-8")
        return path

    return write
