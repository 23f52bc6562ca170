"""Traces the published shapes and writes what the package ships: ``workbench/memory/profiles``.

python benchmarks/memory_profiles.py            # models that have no file yet
python benchmarks/memory_profiles.py sdxl       # one anew
"""

from __future__ import annotations

import json
import sys
from typing import Any

from random_models.diffusion import SHAPES

from workbench.engines.trace import trace_component
from workbench.memory.estimate.profiles import digest, shortened
from workbench.project import project_root

FOLDER = project_root() / "workbench" / "memory" / "profiles"
STARTER = project_root() / "data" / "models" / "shapes-32"


def parts(model: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Part -> (architecture as its config.json names it, configuration)."""
    if model == "shapes-32":
        configs = {f.parent.name: json.loads(f.read_text()) for f in STARTER.glob("*/config.json")}
        return {n: (c.get("_class_name") or c["model_type"], c) for n, c in configs.items()}
    names = {"CLIP": "clip_text_model", "T5": "t5"}
    found = {}
    for name, (kind, config) in SHAPES[model].items():
        architecture = next((v for k, v in names.items() if kind.startswith(k)), kind)
        found[name] = (architecture, json.loads(json.dumps(config)))
    return found


def main() -> None:
    """One file a model, one entry a part; a part that another model has too is left out."""
    FOLDER.mkdir(exist_ok=True)
    asked = sys.argv[1:]
    for model in (*SHAPES, "shapes-32"):
        file = FOLDER / f"{model}.json"
        if (asked and model not in asked) or (not asked and file.exists()):
            continue
        others = [f for f in FOLDER.glob("*.json") if f != file]
        known = {key for other in others for key in json.loads(other.read_text())}
        entries = {}
        for name, (architecture, config) in parts(model).items():
            key = digest(architecture, config)
            if key is None or key in known:
                continue
            profiles = trace_component(architecture, shortened(architecture, config))
            if not profiles:
                sys.exit(f"{model}: {name} cannot be traced.")
            entries[key] = {
                "model": f"{model} {name}",
                "profiles": {k: p.model_dump(mode="json") for k, p in profiles.items()},
            }
        file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        print(file.name, len(entries), flush=True)


if __name__ == "__main__":
    main()
