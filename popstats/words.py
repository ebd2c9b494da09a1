"""The one place where numbers and findings become English."""

from __future__ import annotations

import html
import json
import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from popstats.findings import Estimate, Finding, Span, Value, merge

#: Printed where there is no number.
MISSING = "–"
_MINUS = "−"
#: What a regime removes, and the reduction that defines it, in words.
AXIS_WORDS = {"macs": "MACs", "params": "parameters"}
_REDUCTIONS = {"macs": "MACs reduction", "params": "parameter reduction"}
#: Regime label of a verdict over all regimes.
ALL = "all"
#: A claim and its denial in a template.
_CHOICE = re.compile(r"\[([^|\]]*)\|([^|\]]*)(?:\|([^\]]*))?\]")
#: Every interval of the package, in words.
INTERVAL_WORDS = "90 % interval"


def number(value: float, decimals: int = 2) -> str:
    """Return a number with a true minus sign; a dash where it is missing."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{abs(value):,.{decimals}f}"
    negative = value < 0 and any(digit in text for digit in "123456789")
    return f"{_MINUS}{text}" if negative else text


def places(lower: float, upper: float, decimals: int = 2) -> int:
    """Return the decimals that tell the ends of a range apart: `decimals`, and up to three more where it is narrow.

    >>> places(0.0221, 0.0257), places(0.9, 1.1), places(1.4199, 1.4207), places(1.0, 1.0)
    (3, 2, 4, 2)
    """
    width = abs(upper - lower)
    needed = math.ceil(math.log10(1.0 / width) - 1e-9) if 0.0 < width < math.inf else decimals
    return min(max(decimals, needed), decimals + 3)


def interval_words(lower: float, upper: float, decimals: int = 2) -> str:
    """Return an interval in words."""
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return MISSING
    digits = places(lower, upper, decimals)
    return f"{number(lower, digits)} to {number(upper, digits)}"


def with_interval(value: float, lower: float, upper: float, decimals: int = 2) -> str:
    """Return a number with its interval."""
    if not math.isfinite(value):
        return MISSING
    return f"{number(value, places(lower, upper, decimals))} ({interval_words(lower, upper, decimals)})"


def span_words(values: Sequence[float], form: Callable[[float], str] = number) -> str:
    """Return the smallest and the largest of some numbers in words; one where they read the same."""
    low, high = (form(end(values)) for end in (min, max))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def percent(fraction: float, decimals: int | None = None) -> str:
    """Return a fraction in percent, with as many decimals as it needs (at most one) unless told."""
    if not math.isfinite(fraction):
        return MISSING
    places = decimals if decimals is not None else int(abs(100 * fraction - round(100 * fraction)) > 0.01)
    return f"{number(100 * fraction, places)} %"


def probability(value: float) -> str:
    """Return a probability with two decimals that never rounds to certainty."""
    if not math.isfinite(value):
        return MISSING
    if value > 0.99:
        return "> 0.99"
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def p_value(value: float) -> str:
    """Return a p-value with three decimals that never rounds to zero."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float) -> str:
    """Return a whole number with thousands separators."""
    return f"{int(value):,}"


def plural(value: int, singular: str, several: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count(value)} {singular if value == 1 else several or singular + 's'}"


def points(value: float) -> str:
    """Return a number of percentage points with as many digits as it needs."""
    return f"{value:g} {'point' if value == 1 else 'points'}"


def join_words(items: Sequence[str], last: str = "and") -> str:
    """Return a list in words."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def typeset(text: str) -> str:
    """Return text with a true minus sign before numbers, R², quotes of prose, and whole percentages and intervals."""
    signed = re.sub(r"(?<![\w-])-(?=\d)", _MINUS, text).replace("R^2", "R²")
    quoted = re.sub(r"(?<==)'(\w+)'", r"“\1”", signed)
    whole = re.sub(r"\(([−\d.,]+) to ([−\d.,]+)\)", "(\\1\u00a0to\u00a0\\2)", quoted)
    return re.sub(r"(?<=\d) %", "\u00a0%", whole)


def html_of(told: str, *tables: Any) -> str:
    """Return words and frames as a notebook shows them: three significant digits, and whole numbers from a thousand on."""

    def form(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    shown = (table.to_html(index=False, float_format=form, border=0) for table in tables)
    return f"<p>{html.escape(typeset(told))}</p>{''.join(shown)}"


def regime_name(label: str) -> str:
    """Return a regime's label as a percentage removed, with all its digits; other labels stay."""
    try:
        return percent(float(label), max(len(label.partition(".")[2].rstrip("0")) - 2, 0))
    except ValueError:
        return label


def regime_names(labels: Sequence[str], last: str = "and") -> str:
    """Return regimes' labels as a list in words with one percent sign."""
    names = [regime_name(label) for label in labels]
    if not all(name.endswith(" %") for name in names):
        return join_words(names, last)
    return join_words([*(name.removesuffix(" %") for name in names[:-1]), *names[-1:]], last)


def place(labels: Sequence[str], axis: str = "") -> str:
    """Return where something holds, for the middle of a sentence."""
    if not labels or list(labels) == [ALL]:
        return "over all regimes"
    return f"at {regime_names(labels)}{f' {_REDUCTIONS[axis]}' if axis else ''}"


def capitalized(text: str) -> str:
    """Return a sentence's beginning in capitals; names such as mCB stay as they are."""
    return text if text.startswith("mCB") else f"{text[:1].upper()}{text[1:]}"


def uncapitalized(text: str) -> str:
    """Return a sentence's beginning for the middle of another; names such as C3a stay as they are."""
    return text if text[1:2].isdigit() or text[1:2].isupper() else f"{text[:1].lower()}{text[1:]}"


def sentence(finding: Finding, command_line: bool = False) -> str:
    """Return a finding as a sentence; of plan lines, the lines.

    Parameters
    ----------
    finding : Finding
    command_line : bool
        Name arguments as options: ``--noise student`` instead of ``noise='student'``.

    >>> sentence(Finding("few recipes", ("0.50",), {"recipes": 4, "needed": 10}))
    '4 recipes; a curve needs at least 10.'
    """
    text = clause(finding, command_line)
    return text if "\n" in text else f"{capitalized(text).removesuffix('.')}."


def clause(finding: Finding, command_line: bool = False) -> str:
    """Return a finding as part of a sentence: no capital, no full stop."""
    supported = f"{finding.kind} supported" if finding.values.get("outcome") == "supported" else ""
    words = _WORDS[supported if supported in _WORDS else finding.kind]
    template = words if isinstance(words, str) else words(finding)
    chosen = _CHOICE.sub(lambda found: _by_outcome(found, finding), template)
    axis = finding.values.get("axis", "")
    where = place(finding.regimes, axis if isinstance(axis, str) else "")
    given = {"at": where, "regimes": regime_names(finding.regimes), **finding.values}
    return _Writer(command_line).format(f"{chosen}{_to_try(finding)}", **given)


def _by_outcome(found: re.Match[str], finding: Finding) -> str:
    """Return what a verdict says of a claim: that it holds, that it does not, or that this is undecided."""
    claim, denial, question = found.groups()
    told = {"supported": claim, "refuted": denial}
    return told.get(str(finding.values["outcome"]), f"it is undecided whether {question or claim}")


def _to_try(finding: Finding) -> str:
    """Return which kinds of noise to try against a misfit, where there are any."""
    tried: Any = finding.values.get("tried", ())
    names = " and ".join(f"{{noise={name}}}" for name in tried)
    return f"; try {names}{', and compare them' if len(tried) > 1 else ''}" if names else ""


def sentences(findings: Sequence[Finding], command_line: bool = False) -> tuple[str, ...]:
    """Return a sentence per kind and words: regimes with the same finding share one, numbers become ranges."""
    return tuple(sentence(found, command_line) for found in merge(findings))


#: Specs of templates' fields that name a form.
_FORMS = {"p": probability, "pv": p_value, "g": "{:g}".format, "pt": points}


class _Writer(string.Formatter):
    """Templates' fields: {name:spec}, and {argument=value}, which becomes an option on the command line.

    Specs of numbers: digits ("2"), "%", "p" (a probability), "pv" (a p value), "g", "pt" (points), or the counted noun;
    none: a whole number. Of findings: what to put before them, where there are any.
    """

    def __init__(self, command_line: bool) -> None:
        self.command_line = command_line

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        name, equals, value = str(key).partition("=")
        if not equals:
            return kwargs[name]
        if self.command_line:
            return f"--{name.replace('_', '-')} {value}"
        return f"{name}={value}" if value.isdigit() else f"{name}={value!r}"

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Finding):
            value = (value,)
        if isinstance(value, Estimate):
            spec = _apart(value.lower, value.upper, format_spec)
            return f"{_digits(value.value, spec)} ({INTERVAL_WORDS} {_digits(Span(value.lower, value.upper), spec)})"
        if isinstance(value, tuple) and not isinstance(value, Span):
            return self._several(value, format_spec)
        return value if isinstance(value, str) else _digits(value, format_spec)

    def _several(self, values: Sequence[Value], spec: str) -> str:
        if values and isinstance(values[0], Finding):
            told = [clause(v, self.command_line) for v in values if isinstance(v, Finding)]
            return f"{spec}{'; '.join(told)}"
        ranges = bool(values) and isinstance(values[0], Span)
        return join_words([self.format_field(v, spec) for v in values], "or" if ranges else "and")


def _apart(lower: float, upper: float, spec: str) -> str:
    """Return a template's spec with enough digits to tell the ends of a range apart."""
    return str(places(lower, upper, int(spec))) if spec.isdigit() else spec


def _digits(value: float | Span, spec: str) -> str:
    """Return a number, or the two ends of a range, by a template's spec."""
    if isinstance(value, Span):
        if spec.isalpha() and len(spec) > 2:
            return f"{count(value.low)} to {plural(int(value.high), spec)}"
        low, high = (_digits(v, _apart(*value, spec)) for v in value)
        return f"{low.removesuffix(' %')} to {high}" if low != high else low
    if spec.startswith("%"):
        return percent(value, int(spec[1:]) if spec[1:] else None)
    if spec in _FORMS:
        return _FORMS[spec](value)
    if spec.isalpha():
        return plural(int(value), spec)
    return number(value, int(spec or 0))


# What follows is what can be said. A template, or a function that picks one; fields are a finding's values.


#: What stands above the lines of a plan, by kind.
_PLAN_COMMENTS = {
    "twice the recipes": "# Twice the present number; popstats.plan_size gives the number for a given precision.\n",
    "deciding recipes": "# With this many recipes in total, four of five such regimes are decided.\n",
}


def _plan(finding: Finding) -> str:
    """Return the lines of a plan with these recipes; of several regimes, with the largest of their counts."""
    values: Mapping[str, Any] = finding.values
    count, techniques = values["count"], values.get("retraining", ())
    lines = [f"{_PLAN_COMMENTS.get(finding.kind, '')}[[recipes]]", f'axis = "{values["axis"]}"']
    lines.append(f"regimes = [{', '.join(f'{float(label):g}' for label in finding.regimes)}]")
    if space := values.get("space"):
        lines.append(f'space = "{space}"')
    lines.append(f"count = {count.high if isinstance(count, Span) else count:.0f}")
    if techniques:
        lines.append(f"retraining = [{', '.join(map(json.dumps, techniques))}]")
    return "\n".join(lines)


def _another_way(finding: Finding) -> str:
    """Say how to get a fit that its diagnostics accept; regimes: the one known to be worst."""
    worst, more = " (worst at {regimes})" if finding.regimes else "", "more draws ({draws=4000}, {tune=2000})"
    if finding.values["method"] == "exact":
        return "fit again with {method=nuts}, which has no grid, or with a wider prior for the amplitude (argument priors)"
    if finding.values["noise"] == "normal":
        return f"fit again with {{method=exact}}, which has no chains{worst}, or with {more}"
    return f"fit again with {{noise=normal}}, which has a closed form{worst}, with {more}, or with more recipes there"


def _decision(finding: Finding) -> str:
    """Say how a verdict came about: its probability, its prior, and the rule that it met or missed."""
    values: Mapping[str, Any] = finding.values
    outcome, (shown, even) = values["outcome"], ("Bootstrap probability {probability:3}.", "")
    if not math.isnan(values["prior"]):
        shown, even = (
            "Posterior probability {probability:3} (prior {prior:2}).",
            ", also under even prior odds",
        )
    if outcome == "refuted" and values["negligible"]:
        return f"The whole {INTERVAL_WORDS} is negligible: {{negligible}}. {shown}"
    if outcome == "undecided" and not values["withheld"] and values["probability"] <= values["at_most"]:
        return f"{shown} Unlikely ({{probability:%}}, prior {{prior:%}}), but the evidence is too weak to refute it."
    return f"{shown} Supported at ≥ {{at_least:g}}; refuted at ≤ {{at_most:g}}{even}."


#: By conjecture: what its estimate is of, the unit, and what counts as no effect; fields are `Thresholds`.
QUANTITIES: Mapping[str, tuple[str, str, str]] = {
    **dict.fromkeys(("C1", "C2", "C3a"), ("rise at the shallower end", "points",
                    "the curve varies by at most {rise:g} points over the observed range")),
    "C3b": ("winners near the optimal mCB", "times their share",
            "the nearest networks hold at most {lift:g} times their share of the winners"),
    "C3c": ("cost of mCB = 1", "points", "mCB = 1 costs under {regret:g} points"),
    "C3d": ("change of the optimum", "factor", "the optimum changes by no more than a factor of {trend:g}"),
    "C4": ("reduction of the error", "points", "none: any lower error counts"),
    "S1": ("advantage of low STD", "points", "the mean drops differ by at most {std_points:g} points"),
    "R1": ("cost of exchanging optima", "points",
           "the optimal mCB of one technique costs under {regret:g} points for another"),
    "M1": ("R² added by mCB", "R² beyond MACs", "adding mCB raises R² by at most {gain:g}"),
}  # fmt: skip

#: Every kind's template: "kind: template" or "kind, kind: template", continued on indented lines; [a|b]: a where the outcome
#: is "supported", b where it is "refuted", else "it is undecided whether a" (of [a|b|c]: whether c). "kind supported": words
#: of a supported claim.
_TEMPLATES = """
text: {text}
# What a reader should know about a table.
run unfinished: this run holds {finished} of {planned} trainings: it is still running or was stopped. Rerun its command to
    resume it
blanks removed: blanks around column names were removed: {names}
best accuracies: accuracies are the best over epochs on the {images} images. Selecting on the {images} set makes them
    optimistic, more so for noisier trainings
validation accuracies: accuracies were measured on validation images, after the last epoch
unknown accuracies: the table does not say which epoch's accuracy it holds (accuracy_kind). It is assumed to
    list every trained network: among the best of each cost, the optimum may only be where most were tried
collapsed: {rows} of {trainings} trainings ended below half of the original's accuracy (lowest: {lowest:2} %). With
    normal noise a few such outliers widen every interval of their regime; {noise=student} down-weights them
most collapsed: {rows} of {trainings} trainings ended below half of the original's accuracy (lowest: {lowest:2} %). Check
    the original's accuracy, and that the column holds accuracies in percent, not errors or losses
better than original: {rows} of {trainings} networks are more accurate than the original ({accuracy:2} %). Check the
    original's accuracy, and that the column holds accuracies, not errors, losses or perplexities
did not learn: the original reaches only {accuracy:2} % on {dataset}, less than twice chance ({chance:g} %): it did
    not learn. Train it with a smaller learning rate, or for longer, before pruning it
learned little: the original reaches only {accuracy:2} % on {dataset}, where {usual:0} % is usual. Train it for longer
    before pruning it: drops from an undertrained network say little about recipes
above original: rows that cost up to 1 % more than the original in {costs}: {rows}. They are kept: rounding or a different
    way of counting can explain such differences
half the MACs: networks with all of the original's parameters have {share:%} of its MACs. If only one side counts two
    FLOPs per MAC, count both alike
other count: mCB runs from {low:2} to {high:2}, and the original's is 1, about a factor of two away. If only one side
    counts two FLOPs per MAC, or another input size, count both alike
techniques unsaid: {missing} of {trainings} trainings do not say how they were retrained (column retraining). Besides
    {named}, they count as a separate technique, which R1 cannot compare; if they belong to a named one, fill in the
    column
copies: rows that are exact copies of other rows: {rows}. They count as separate trainings; if they are not, remove them
    (frame.drop_duplicates()), otherwise every interval is too narrow
repeated: recipes that repeat the costs and the accuracy of others under another recipe_id: {rows}. If they are copies,
    remove them, otherwise every interval is too narrow
theoretical MACs: MACs count non-zero weights. {kind} sparsity does not change the shape of tensors, so these MACs are
    theoretical: any speed-up depends on hardware and kernels, and was not measured
equal costs: {rows} of {trainings} rows have the MACs and the parameters of an earlier row and count as further trainings
    of its recipe; if they are different networks, map the column that distinguishes them to recipe_id
targets unsaid: {missing} of {trainings} rows lack regime_axis or regime_target, so no target is used: regimes are cells of
    similar cost
# Why a regime has no curve.
few recipes: {recipes:recipe}; a curve needs at least {needed}
few recipes of techniques: {recipes:recipe}; a curve through {techniques} retraining techniques needs at least
    {needed}
one mCB: all recipes have practically the same mCB
mCB follows cost: mCB follows from the cost; at equal cost it varies by a factor of only {factor:3}, {share:%0} of its
    whole range; a curve needs a factor of {needed_factor:2} and {needed_share:%0}
one drop: all recipes have the same accuracy drop
# Why a fit cannot be used, and the ways out.
not converged: {what}: {reasons}
few draws: {draws} draws per chain are too few for R-hat and ESS
R-hat: R-hat up to {worst:3} (must be under {most:g})
ESS: {kind} ESS down to {least} (must be over {needed})
divergent: {transitions:divergent transition}
E-BFMI: E-BFMI {found:2} (must be over {needed:g})
grid edge: {at}, {share:%0} of the posterior lies at the edge of the amplitude grid
# Why a claim cannot be assessed, or is withheld.
no optimum: C3a is refuted, so there is no optimal mCB inside the observed range
optimum undecided: whether there is an optimal mCB at all (C3a) is undecided
band not reachable: networks {side} mCB {bound:2} do not exist at this reduction, so the band {band:2} cannot be
    passed on both sides
original not observed: mCB = 1 lies outside the observed range ({observed:2})
few outside band: only {outside:%} of the networks lie outside the band {band:2}; at least {needed:%} are needed
few for halves: {recipes:recipe}; two halves with winners in each need {needed}
few regimes with optimum: C3a is supported in {held:regime}; {needed} are needed
few for validation: {recipes:recipe}; cross-validation needs {needed}
few for spaces: {recipes:recipe}; a comparison of two spaces needs {needed}
one STD: all recipes have practically the same STD
no common costs: {text}
no widths: the table has no widths
widths incomplete: the widths explain only {share:%0} of the held-out variance of log mCB at equal cost, and a complete
    set explains at least {needed:%0}; columns are missing or hold something else, and mCB may be a proxy for them
law still learns: mCB adds {gain:3} to R², but the learning curve of the width law suggests that more recipes alone would
    add {to_learn:3}
no STD: the table has neither widths nor the column ratio_std
one technique: a comparison needs two retraining techniques; the table has {held}{unnamed:; }
few techniques here: fewer than two techniques have enough recipes here ({held})
technique rejected: for the networks retrained by {technique} alone, {why}
no optimum of technique: C3a is not supported for any technique alone, so there is no optimum to move
moves with cost: the curve moves with {cost} inside the regime (F test, p {p:pv}), by {change:2} points between its
    two ends, so one curve does not describe it
clusters: the recipes form {groups} clusters that cover {covered:%0} of the observed range; differences between a few
    clusters do not determine a curve
outliers: a few outlying recipes raise the {end} end: with Student-t weights it lies {rise:2} points above the minimum,
    and the probability that it exceeds {required:g} is only {probability:2}
groups: recipes of similar mCB resemble each other beyond the curve, as families of networks do: with a separate effect
    for each of {groups} groups, the probability of an optimum is only {probability:2}
kinds: networks with the same {column} do not show the optimum: with a separate intercept for each value, the probability
    of an optimum is only {probability:2}
order: drops follow the order of the rows, as in a log or a stack of tables: with a separate intercept for each of {levels}
    parts of the table, the probability of an optimum is only {probability:2}
lucky: optima permuted over the regimes predict as well (permutation p = {lucky:2})
# What else the reason of a verdict says.
mixture: networks retrained by {techniques} share one curve, with an intercept per technique;
    population.where(retraining='{first}') fits one alone
other axis: from a second fit, with regimes of equal {equal} and normal noise
outside band: {outside:%} of the networks lie outside the band {band:2}
halves noise: the halves are fitted with {noise} noise, as the whole
EDF distance: EDFs: Kolmogorov-Smirnov {ks:2}, p {p:pv}
unnamed techniques: {missing} of {whole} trainings do not name their retraining technique and are left out
observed: observed mCB {observed:2}
# What would decide.
too many recipes: the rise is too close to its threshold (rise) for this spread of the drops: more than {most} recipes would
    be needed
name widths: name the columns that hold the widths: Population.from_frame(..., widths=[...])
narrower regimes: fit narrower regimes, for example regimes={{{target:g}: {half_width:3}}}
down-weight outliers: inspect the outlying recipes, and fit again with {noise=student}, which down-weights them
add unrelated: add recipes that are drawn independently of each other, over the whole range of mCB
one kind: fit one kind of network at a time: population.where({column}=...). If the column is part of the recipe, leave
    it out of the table
random order: train a random sample of these recipes once more, all in the same way, and judge those rows alone
fill the gaps: add recipes whose mCB lies between the clusters
# Clauses inside verdicts.
flat: the expected drop varies by only {height:2} points
one-sided: the {better} the better, as far as observed; the {far} end costs {cost:2} points more
lopsided: the drop rises by {least:2} points at the {end} end; more than {required:g} is required at both
near-optimal: the optimal mCB is {best:2}; values from {ranges:2} are within {height:pt} of the minimum
two regions: there are two near-optimal ranges of mCB, {first:2} and {second:2}, with worse values in between; the minimum
    is at {best:2}
two costs: the two near-optimal ranges of mCB are at about {first:%1} and {second:%1}
technique optimum: {technique}: {best:2}
widths unknown: Whether it is more than an effect of the layer widths cannot be told without widths.
widths explain: Any additive effect of the layer widths would produce such an optimum: once the widths are known, mCB
    adds no predictive power.
widths explain a part: Once the layer widths are known, mCB adds no predictive power, but they explain only {reach:%0}
    of the noise ceiling, so the cause of the optimum is unresolved.
widths reach unknown: Once the layer widths are known, mCB adds no predictive power; how much they explain is unknown
    without a second seed.
interaction: An interaction of the layer widths is at work, of which mCB carries {share:%0}.
beyond widths: It is more than an effect of the layer widths: mCB adds {gain:3} to R².
widths undecided: Whether it is more than an effect of the layer widths is undecided.
reach: the widths alone explain {reach:%0} of the noise ceiling
# Verdicts.
not assessable: {at}, {conjecture} cannot be assessed: {why}
C1, C2: {at}, [there is an optimal {cost}|there is no optimal {cost}] inside the observed range: {shape}. At equal {equal}
    this is C3a in another unit
C1 supported, C2 supported: {at}, there is an optimal {cost}: {share:%1} of the original's, about {count}{others:; }. At
    equal {equal} this is C3a in another unit
C3a: {at}, [there is an optimal mCB|there is no optimal mCB] inside the observed range ({observed:2}): {shape}
C3a supported: {at}, {near}, and both ends of the observed range ({observed:2}) lie at least {rise:2} points
    higher.{widths: }
C3b: {at}, [the winners lie near the optimal mCB|the winners do not lie near the optimal mCB]: the {nearest:%} of the
    networks nearest to the optimum of the other half hold {lift:2} times their share of the winners (the best
    {winners:%}); the curve alone implies {implied:2}
C3c: {at}, [the original's ratio (mCB = 1) is practically the best|the original's ratio (mCB = 1) is not the best]: it
    costs {cost:2} points more than the optimal mCB (threshold {limit:g})
C3d: {at}, [the optimal mCB rises with more aggressive pruning|the optimal mCB {direction} with more aggressive pruning]:
    from {first:%} to {last:%} reduction it changes by a factor of {change:2} ({count} regimes)
C4: {at}, [the optimal mCB predicts the limit|the optimal mCB does not help to predict the limit]: added to the best law in
    the remaining cost ({law}), it {direction} the leave-one-out error of the predicted limit by {change:3} points
    ({count} regimes; permutation p = {lucky:2}); a constant has an error of {constant:3} points
S1: {at}, [low-STD spaces beat high-STD spaces|low-STD spaces do not beat high-STD spaces]: at equal MACs, recipes with an
    STD of the pruning ratios up to {low:2} are {direction} than those from {high:2} by {change:2} points of mean drop;
    their median drop is {median:2} points {size}
S1 overall: {at}, [low-STD spaces beat high-STD spaces|low-STD spaces do not beat high-STD spaces]: on average over
    {count} regimes their mean drop is {direction} by {change:2} points; from {first:%} to {last:%} reduction the
    advantage goes from {start:2} to {end:2} points, a change of {trend:2}
R1: {at}, [the retraining technique does not move the optimum|the retraining technique moves the optimum|the retraining
    technique moves the optimum]: using one technique's optimal mCB for another costs {cost:2} points ({optima})
M1: {at}, [mCB explains something that the layer widths do not|mCB adds no predictive power once the layer widths are
    known]: added to {rival}, it changes the cross-validated R² by {gain:4}{reach:; }{interaction:. }
# What a fit's own checks found.
heavy tails: {at}, the residuals have heavier tails than the model (excess kurtosis {kurtosis:1})
skewed up: {at}, more recipes lie far above the curve than far below it (skewness {skewness:1})
skewed down: {at}, more recipes lie far below the curve than far above it (skewness {skewness:1}); some do much better
    than their mCB suggests
light tails: {at}, the residuals have lighter tails than the model (excess kurtosis {kurtosis:1}), so intervals for
    single trainings are too wide
far recipe: {at}, the largest standardized residual is {largest:1} (expected ≤ {expected:1}); inspect this recipe
wrong coverage: {at}, {inside:%0} of the recipes lie inside their 90 % intervals, which are too {too}
not uniform: {at}, the recipes are not spread about the curve as predicted (LOO-PIT values {distance:2} from uniform)
breaks trend: {at}, the limit, {limit:2} points, departs from the trend of the other regimes, which predicts {predicted:2}
leans on priors: {at}, the priors influence the {results}: {why} (sensitivity {sensitivity:2}); raising the priors to
    powers of 0.8 to 1.25 moves the median or the interval by up to {moved:1} standard deviations. Fit again with other
    priors and report both
robust to priors: no optimum, near-optimal range or limit is sensitive to the priors: raising them to powers of 0.8 to
    1.25 moves no median by more than {moved:2} standard deviations
# What the limit follows over regimes.
limit: the limit at a reduction of {reduction:%} is {limit:2} points, predicted by the best law in the remaining cost
    ({law}), whose leave-one-out error is {error:2} points
limit extrapolated: the limit at a reduction of {reduction:%}, which lies beyond the fitted regimes, is extrapolated to
    {limit:2} points by the best law in the remaining cost ({law}); the interval spans all laws that predict left-out
    regimes about as well
# What several populations say together.
pooled quantity: pooled over {populations:population}, the {quantity} is {pooled:2}; for a regime of a new population,
    expect {new:2}
pooled verdicts: C3a is supported in {supported} of {assessable} regimes that can be assessed; by chance alone, at most
    {by_chance:1} would be expected
doubled mCB: {at}, doubling the original's {size} multiplies the optimal mCB by {best:2} and the ends of its near-optimal
    range by {low:2} and {high:2}
doubled limit: {at}, doubling the original's {size} changes the limit by {limit:2} points
# What stands against relying on an optimal mCB.
predicts nothing: it predicts nothing beyond MACs (cross-validated R² {r2:2})
winners elsewhere: the winners do not lie near the optimal mCB
envelope elsewhere: the best recipes lie elsewhere (lower envelope: mCB {envelope:2})
mix moves: the optimal mCB depends on the mix of recipes ({range:2})
rests on few: {at}, the optimal mCB rests on only {recipes} recipes, so the prior shapes much of the curve
outliers bend: {at}, a few recipes drop far more than the others and bend the curve; fit with {noise=student} before
    relying on it
pooled: {at}, networks retrained by {techniques} share one curve, with an intercept per technique;
    population.where(retraining=…) fits one alone
misfit: {at}, the noise model does not fit the recipes
# What a reader must know first.
rejected: the diagnostics reject the fit: {why}. Do not use its ranges
not fitted: not fitted: {regimes} ({why}; {trainings} trainings)
extrapolated: {at}, the regime's centre lies outside its recipes ({reductions:%1}), so its drops are extrapolated; fit
    again with centres among the recipes (regimes)
stated among recipes: {at}, all recipes lie on one side of the regime's centre, so drops are stated at {reference:%}, where
    they lie
failed trainings: {failed} of {whole} trainings failed and are not in the fit
outliers widen: {at}, a few recipes drop far more than the others and widen every interval; {noise=student}
    down-weights them
changing spread: {at}, the residual spread changes more than 1.5-fold over the observed range; recipes are weighted
    accordingly
few in regime: {at}, there are fewer than {needed} recipes; many claims remain undecided there
no replicates: no recipe was trained with a second seed, so seed noise cannot be separated from differences between
    recipes
"""


def _parsed(text: str) -> dict[str, str]:
    lines = [line for line in text.strip().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\n    ", " ").splitlines()
    return {
        kind: template
        for kinds, _, template in (line.partition(": ") for line in whole)
        for kind in kinds.split(", ")
    }


_WORDS: Mapping[str, str | Callable[[Finding], str]] = {
    **_parsed(_TEMPLATES),
    "fit another way": _another_way,
    "decision": _decision,
    "more recipes": _plan,
    "twice the recipes": _plan,
    "deciding recipes": _plan,
}
