import sys
from pathlib import Path

# The plugin that tests generate with; its metadata lies deeper, so that only processes started for it see it.
sys.path.insert(0, str(next(p for p in Path(__file__).parents if p.name == "tests") / "noise"))
