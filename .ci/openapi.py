"""Writes `docs/openapi.json` anew, from the routes and the types of their answers."""

import json
from pathlib import Path

from service.api.routes import description

file = Path(__file__).parents[1] / "docs/openapi.json"
file.write_text(json.dumps(description(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
print(f"wrote {file}")
