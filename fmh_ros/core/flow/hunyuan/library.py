# SPDX-License-Identifier: Apache-2.0
"""The one place where the publisher's code is imported.

Their packages import everything they have when the first module is asked for: mesh libraries, background removal,
torchvision, which must match torch's build exactly. The few modules that are needed import none of it, so they are
imported beneath stand-ins for the packages above them. That works with the wheel on PyPI (hy3dgen 2.0.2), with the
repository's newer code, and with the separate package of version 2.1 (hy3dshape).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from fmh_ros.core.errors import ModelMissingError

#: Packages that have the modules below, in the order they are asked.
ROOTS = ("hy3dgen.shapegen", "hy3dshape")
#: Module of each class that is used.
MODULES = {
    "ShapeVAE": "models.autoencoders.model",
    "Hunyuan3DDiT": "models.denoisers.hunyuan3ddit",
    "HunYuanDiTPlain": "models.denoisers.hunyuandit",
    "FlowMatchEulerDiscreteScheduler": "schedulers",
    "ConsistencyFlowMatchEulerDiscreteScheduler": "schedulers",
    "ImageProcessorV2": "preprocessors",
}
#: How to get it; the wheel's own list of dependencies is long and not needed.
INSTALL = "pip install 'fmh-ros[foundation]' && pip install --no-deps hy3dgen==2.0.2"


def library_class(name: str) -> Any:
    """Return one of the publisher's classes. Raises ModelMissingError when no installed package has it."""
    seen = "hy3dgen is not installed"
    for root in ROOTS:
        if importlib.util.find_spec(root.partition(".")[0]) is None:
            continue
        try:
            module = _import_beneath(root, MODULES[name])
        except ImportError as error:
            seen = f"{root} is installed but {name} cannot be imported from it: {error}"
            continue
        if hasattr(module, name):
            return getattr(module, name)
        seen = f"{root} is installed but has no {name}"
    raise ModelMissingError(
        f"The code of Hunyuan3D is missing: {seen}",
        expected=f"a package that has {name}",
        change=f"Read the publisher's licence, then run `{INSTALL}`; version 2.1 needs its repository's newer code",
    )


def build(name: str, parameters: dict[str, Any]) -> Any:
    """Make one of the publisher's objects without what it says on the standard output."""
    kind = library_class(name)
    with contextlib.redirect_stdout(io.StringIO()):
        return kind(**parameters)


def _import_beneath(root: str, leaf: str) -> ModuleType:
    """Import ``root.leaf`` without running the packages above it, unless they have been imported already."""
    with _stand_ins(f"{root}.{leaf}"):
        return importlib.import_module(f"{root}.{leaf}")


@contextlib.contextmanager
def _stand_ins(module: str) -> Iterator[None]:
    """Register empty packages above ``module`` for as long as the context lasts.

    They are taken away again so that somebody else's import of the whole package still gets the real one; modules
    imported meanwhile stay, and are the ones it then finds.
    """
    names = module.split(".")[:-1]
    spec = importlib.util.find_spec(names[0])
    assert spec is not None and spec.submodule_search_locations is not None
    folders = [Path(each) for each in spec.submodule_search_locations]
    added = []
    for depth in range(1, len(names) + 1):
        name = ".".join(names[:depth])
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(folder.joinpath(*names[1:depth])) for folder in folders]
            sys.modules[name] = package
            added.append(name)
    try:
        yield
    finally:
        for name in added:
            sys.modules.pop(name, None)
