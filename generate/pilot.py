"""What a pilot's fit says of a plan's regimes: asked of popstats in a process of its own, which shares no imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generate.worklist import Training
from popstats.errors import PlanError

__all__ = ["ask_popstats", "print_pilot"]

#: Exit status of popstats where the fit's own diagnostics reject it; its answer comes all the same.
_REJECTED = 3
_COMMAND = (sys.executable, "-m", "popstats", "plan-size")


def print_pilot(fit: Path, trainings: Sequence[Training], command: Sequence[str] = _COMMAND) -> None:
    """Print, for each regime of the plan that the pilot fitted, how many recipes and seeds would do.

    Parameters
    ----------
    fit : pathlib.Path
        A fit that `python -m popstats fit -o` saved.
    trainings : sequence of Training
        The plan's.
    command : sequence of str
        What runs `popstats plan-size`.

    Raises
    ------
    PlanError
        If the file is no fit.
    """
    print(f"What the pilot {fit} says of these regimes:", flush=True)
    answer = ask_popstats(fit, command)
    if isinstance(answer, str):
        print(f"  {answer}")
        return
    for axis, target in sorted({(t.axis, t.target) for t in trainings}):
        found = [p for p in answer["plans"] if _is_of(p, answer["axis"], axis, target)]
        sentence = (
            found[0]["sentence"] if found else f"no fitted regime on the {answer['axis']} axis is this one."
        )
        print(f"{axis:>6} {target:>5.2f} {sentence} {_planned(axis, target, trainings)}")


def _is_of(plan: dict[str, Any], fitted_axis: str, axis: str, target: float) -> bool:
    return axis in (fitted_axis, "both") and abs(float(plan["regime"]) - target) < 1e-6


def _planned(axis: str, target: float, trainings: Sequence[Training]) -> str:
    held = [t for t in trainings if (t.axis, t.target) == (axis, target)]
    recipes = len({tuple(t.widths) for t in held})
    return f"This plan: {recipes:,} recipes, {len(held):,} trainings."


def ask_popstats(fit: Path, command: Sequence[str] = _COMMAND) -> dict[str, Any] | str:
    """Return what `popstats plan-size` answers, or a sentence where popstats cannot run here.

    Raises
    ------
    PlanError
        If popstats refuses the file.
    """
    if not fit.is_file():
        raise PlanError(
            f"--fit: expected a saved fit, got {fit}, which is no file; `popstats fit -o FILE.nc` saves one"
        )
    asked = subprocess.run(
        [*command, str(fit), "--regime", "all", "--json"], capture_output=True, text=True, check=False
    )
    if asked.returncode in (0, _REJECTED):
        answer: dict[str, Any] = json.loads(asked.stdout)
        return answer
    reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
    if "ModuleNotFoundError" in asked.stderr:
        return f"popstats cannot run here ({reason}); install it whole, or ask it where the fit was made."
    raise PlanError(f"--fit: popstats cannot plan with {fit}: {reason.removeprefix('Error: ')}")
