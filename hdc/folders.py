"""Where the package keeps what can be made again."""

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The folder for what can be made again: `HDC_CACHE_DIR`, else the user's cache folder."""
    if configured := os.environ.get("HDC_CACHE_DIR"):
        return Path(configured).expanduser()
    return platformdirs.user_cache_path("hdc")
