"""The section `Example:` of our docstrings, with a name under which griffe reads its prompts as code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Calls the section `Examples`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
