"""Draw the pictures of the pages in `docs/gallery/` by running their code. Run: `python docs/draw_gallery.py`."""

from __future__ import annotations

import re
from pathlib import Path

import vl_convert

PAGES = Path(__file__).parent / "gallery"
#: A page's code, and the picture below it.
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n\n!\[[^\]]*\]\(\.\./(figures/[\w-]+\.png)\)", re.DOTALL | re.MULTILINE
)
SCALE = 1.5


def main() -> None:
    """Run each page's code; its picture is the `chart` that it makes."""
    for page in sorted(PAGES.glob("*.md")):
        ((code, picture),) = BLOCK.findall(page.read_text())
        names: dict[str, object] = {}
        exec(compile(code, page.name, "exec"), names)
        path = PAGES.parent / picture
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(vl_convert.vegalite_to_png(names["chart"].to_json(), scale=SCALE))  # type: ignore[attr-defined]
        print(path)


if __name__ == "__main__":
    main()
