"""``python -m random_models '{"kind": "language.gguf", "folder": ..., ...}'`` prints the path."""

import importlib
import json
import sys
from pathlib import Path

request = json.loads(sys.argv[1])
module, name = request.pop("kind").split(".")
folder = Path(request.pop("folder"))
build = getattr(importlib.import_module(f"random_models.{module}"), name)
print(build(folder, **request))
