"""Fake distributions: real metadata on a real path, no installer."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..registry.hookspecs import GROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A folder on the path into which distributions are written as an installer would leave them."""

    folder: Path

    def install(
        self,
        dist: str,
        source: str = "",
        *,
        version: str = "1.0",
        entry: str | None = None,
        group: str = GROUP,
        requires: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        editable: bool = False,
        record: bool = True,
        module: str | None = None,
    ) -> Path:
        """Write the distribution ``dist`` and return the folder of its package.

        ``source`` becomes the module ``plugin`` of a package named like the distribution (``my-plugin``:
        ``my_plugin.plugin``), which the entry point ``entry`` (the last word of ``dist``) names; ``files`` lie beside
        it, by name. Sources may be indented. ``module`` is what the entry point names instead. ``editable`` says so in
        the metadata; without ``record`` there is no list of files, as for a checkout that was put on the path.
        """
        package = dist.lower().replace("-", "_").replace(".", "_")
        code = {f"{package}/__init__.py": "", f"{package}/plugin.py": textwrap.dedent(source)}
        code |= {f"{package}/{name}": textwrap.dedent(text) for name, text in (files or {}).items()}
        info = f"{package}-{version}.dist-info"
        lines = [f"Name: {dist}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
        told = {
            "METADATA": "\n".join(["Metadata-Version: 2.1", *lines, ""]),
            "entry_points.txt": f"[{group}]\n{entry or dist.rpartition('-')[2]} = {module or f'{package}.plugin'}\n",
        }
        if editable:
            told["direct_url.json"] = json.dumps({"url": self.folder.as_uri(), "dir_info": {"editable": True}})
        if record:
            rows = [f"{path},{_digest(text)},{len(text.encode())}" for path, text in code.items()]
            told["RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
        for path, text in {**code, **{f"{info}/{name}": text for name, text in told.items()}}.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return self.folder / package


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"
