"""Draw README's picture, and those of the pages in `docs/gallery/` by running their code. Run: `python docs/pictures.py`."""

from __future__ import annotations

import re
from pathlib import Path

import vl_convert

import popstats

DOCS = Path(__file__).parent
# A regime without an optimal mCB, one that does not decide, one that has it.
REGIMES = ("35 %", "65 %", "92 %")
#: A page's code, and the picture below it.
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n\n!\[[^\]]*\]\(\.\./(figures/[\w-]+\.png)\)", re.DOTALL | re.MULTILINE
)


def main() -> None:
    """Fit README's population as its report does; each page's picture is the `chart` that its code makes."""
    drawn = popstats.fit(popstats.load_population("digits-resnet8"), noise="student").plot().to_dict()
    drawn["concat"] = [panel for panel in drawn["concat"] if panel["title"]["text"].startswith(REGIMES)]
    picture = DOCS.parent / "reports" / "drop-against-mcb.png"
    picture.write_bytes(vl_convert.vegalite_to_png(drawn, scale=1.8))
    (DOCS / "figures").mkdir(exist_ok=True)
    for page in sorted((DOCS / "gallery").glob("*.md")):
        ((code, name),) = BLOCK.findall(page.read_text())
        names: dict[str, object] = {}
        exec(compile(code, page.name, "exec"), names)
        chart = names["chart"].to_json()  # type: ignore[attr-defined]
        (DOCS / name).write_bytes(vl_convert.vegalite_to_png(chart, scale=1.5))


if __name__ == "__main__":
    main()
