"""Draw the pictures of `docs/gallery.md` by running its code blocks. Run: `python docs/draw_gallery.py`."""

from __future__ import annotations

import re
from pathlib import Path

import vl_convert

PAGE = Path(__file__).parent / "gallery.md"
#: A block of code, and the picture below it if there is one.
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n!\[[^\]]*\]\((figures/[\w-]+\.png)\))?", re.DOTALL | re.MULTILINE
)
SCALE = 1.5


def main() -> None:
    """Run the blocks in order; each picture is the `chart` that the block above it made."""
    names: dict[str, object] = {}
    for code, picture in BLOCK.findall(PAGE.read_text()):
        exec(compile(code, PAGE.name, "exec"), names)
        if picture:
            path = PAGE.parent / picture
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(vl_convert.vegalite_to_png(names["chart"].to_json(), scale=SCALE))  # type: ignore[attr-defined]
            print(path)


if __name__ == "__main__":
    main()
