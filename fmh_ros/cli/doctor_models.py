# SPDX-License-Identifier: Apache-2.0
"""The part of ``fmh doctor`` about graphics cards and published models: what each profile needs, and what is there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess

from fmh_ros.cli.finding import Finding
from fmh_ros.core import backends
from fmh_ros.core.backends import INSTALL
from fmh_ros.core.reconstruction.installed import missing_models, repairs
from fmh_ros.core.reconstruction.profile import PROFILES, Profile, load_profile
from fmh_ros.core.residency import GIB
from fmh_ros.models.catalogue import find_model
from fmh_ros.models.store import ModelStore

NVIDIA = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.free", "--format=csv,noheader")


def graphics() -> list[Finding]:
    """Describe the cards: as the driver sees them, and as torch does."""
    cards, found = driver_cards(), []
    found += [Finding(f"graphics card {index}", text) for index, text in enumerate(cards)]
    if importlib.util.find_spec("torch") is None:
        return found
    import torch

    if not torch.cuda.is_available():
        text = "none that torch can use; the embedded profile does not need one"
        if cards and not torch.version.cuda:
            text += ". This torch has no CUDA: install the build for it"
        return [*found, Finding("graphics card", text)]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        text = f"{properties.name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, CUDA {torch.version.cuda}"
        found.append(Finding(f"torch, cuda:{index}", text))
    return found


def driver_cards() -> list[str]:
    """What nvidia-smi says of each card: name, driver, memory; empty without it."""
    if shutil.which(NVIDIA[0]) is None:
        return []
    try:
        done = subprocess.run(NVIDIA, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"the driver does not answer ({type(error).__name__})"]
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return [f"{r[0]}, driver {r[1]}, {r[3]} of {r[2]} free" if len(r) == 4 else ", ".join(r) for r in rows]


def profiles(chosen: str, store: ModelStore | None = None) -> list[Finding]:
    """Say of each profile what it misses; of the chosen one every library and every model, and what to do."""
    store, found = store or ModelStore(), []
    for name in PROFILES:
        if name not in (chosen, PROFILES[0]):
            found.append(_summary(load_profile(name), store))
    profile = load_profile(chosen)
    if profile.models or profile.missing_libraries:
        command = repairs(profile, profile.missing_libraries, missing_models(profile, store))
        found += [*_libraries(profile, command), *_models(profile, store, command), *_memory(profile)]
    return found


def _summary(profile: Profile, store: ModelStore) -> Finding:
    """One line; profiles that nobody asked for may miss what they like."""
    libraries, models = profile.missing_libraries, missing_models(profile, store)
    parts = [f"libraries {', '.join(libraries)}"] if libraries else []
    size = sum(find_model(model).size_gb for model in models)
    parts += [f"{len(models)} of {len(profile.models)} models ({size:.0f} GB): {', '.join(models)}"] if models else []
    text = f"misses {'; '.join(parts)}" if parts else "everything is there"
    return Finding(f"profile {profile.text}", text)


def _libraries(profile: Profile, command: str) -> list[Finding]:
    found: dict[str, Finding] = {}
    distributions = importlib.metadata.packages_distributions()
    for choice in profile.stages.values():
        for names in (each.split("|") for each in choice.backend.libraries):
            there = next(filter(backends.is_installed, names), None)
            if there is not None:
                found[there] = Finding(there, _version(distributions.get(there, [there])[0]))
            else:
                text = f"missing, for {choice.backend.key}: {INSTALL[names[0]]}"
                found[names[0]] = Finding(names[0], text, False, command)
    return list(found.values())


def _models(profile: Profile, store: ModelStore, command: str) -> list[Finding]:
    missing, found = missing_models(profile, store), []
    for name in profile.models:
        model, there = find_model(name), name not in missing
        text = f"{store.size(name) / 1e9:.1f} GB at {store.find(name)}" if there else f"missing, {model.size_gb:.1f} GB"
        text += f"; {model.supply}" if model.supply and not there else ""
        found.append(Finding(name, text, there, "" if there else command))
    return found


def _memory(profile: Profile) -> list[Finding]:
    """Whether the card has the memory that the profile plans with."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return [Finding("memory", "without a graphics card the profile runs on the processor, for hours")]
    total = torch.cuda.get_device_properties(0).total_memory / GIB
    text = f"networks take {profile.memory_gib:.0f} GiB of the card's {total:.0f}"
    return [Finding("memory", text + ("" if profile.memory_gib < total else "; they take turns"))]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "installed"
