"""Draw README's picture, `reports/drop-against-mcb.png`: three regimes of a shipped population.

Run: `python docs/picture.py`.
"""

from __future__ import annotations

from pathlib import Path

import vl_convert

import popstats

PICTURE = Path(__file__).parents[1] / "reports" / "drop-against-mcb.png"
# A regime without an optimal mCB, one that does not decide, one that has it.
REGIMES = ("35 %", "65 %", "92 %")
SCALE = 1.8


def main() -> None:
    """Fit the population as its report does, and draw what the report draws."""
    drawn = popstats.fit(popstats.load_population("digits-resnet8"), noise="student").plot().to_dict()
    drawn["concat"] = [panel for panel in drawn["concat"] if panel["title"]["text"].startswith(REGIMES)]
    PICTURE.write_bytes(vl_convert.vegalite_to_png(drawn, scale=SCALE))


if __name__ == "__main__":
    main()
