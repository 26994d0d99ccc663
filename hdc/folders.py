"""Where the package keeps files that can be made again."""

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder: `HDC_CACHE_DIR` if it is set, else `hdc` in the user's cache folder."""
    if configured := os.environ.get("HDC_CACHE_DIR"):
        return Path(configured).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "hdc" / "hdc" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "hdc"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "hdc"
