"""Numbers, regimes and beginnings of sentences in words."""

import pytest

from popstats import words


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (words.number(1.2345), "1.23"),
        (words.number(-0.5, 1), "−0.5"),
        (words.number(float("nan")), "–"),
        (words.number(-0.004), "0.00"),
        (words.number(1234.5, 1), "1,234.5"),
        (words.interval_words(float("nan"), 1.0), "–"),
        (words.interval_words(-0.1, 0.25), "−0.10 to 0.25"),
        (words.with_interval(1.0, 0.9, 1.25), "1.00 (0.90 to 1.25)"),
        (words.percent(0.75), "75 %"),
        (words.percent(0.875), "87.5 %"),
        (words.percent(0.1234, 2), "12.34 %"),
        (words.probability(0.97), "0.97"),
        (words.probability(0.9999), "> 0.99"),
        (words.probability(0.0), "< 0.01"),
        (words.p_value(0.0004), "< 0.001"),
        (words.p_value(0.25), "0.250"),
        (words.count(49152), "49,152"),
        (words.plural(1, "regime"), "1 regime"),
        (words.plural(3, "regime"), "3 regimes"),
        (words.points(1.0), "1 point"),
        (words.points(0.05), "0.05 points"),
        (words.join_words(["a", "b", "c"]), "a, b and c"),
        (words.typeset("-0.5 at 75 %"), "−0.5 at 75\u00a0%"),
        (words.typeset("ResNet-20 lost -0.5 points, 5 - 3"), "ResNet-20 lost −0.5 points, 5 - 3"),
        (words.typeset("1.0 (0.9 to 1.1)"), "1.0 (0.9\u00a0to\u00a01.1)"),
        (words.typeset("try noise='student'"), "try noise=“student”"),
        (words.regime_name("0.75"), "75 %"),
        (words.regime_name("0.875"), "87.5 %"),
        (words.regime_name("0.99968"), "99.968 %"),
        (words.regime_name("all"), "all"),
        (words.regime_names(["0.65", "0.75", "0.875"]), "65, 75 and 87.5 %"),
        (words.regime_names(["0.65"]), "65 %"),
        (words.regime_names(["0.65", "all"]), "65 % and all"),
        (words.place(["0.65", "0.75"], "macs"), "at 65 and 75 % MACs reduction"),
        (words.place(["0.5"]), "at 50 %"),
        (words.place(["all"]), "over all regimes"),
        (words.capitalized("at 50 %"), "At 50 %"),
        (words.capitalized("mCB = 1 was not observed"), "mCB = 1 was not observed"),
        (words.uncapitalized("No widths."), "no widths."),
        (words.uncapitalized("C3a is refuted."), "C3a is refuted."),
        (words.uncapitalized("EDFs differ."), "EDFs differ."),
    ],
)
def test_numbers_and_places_in_words(found: str, told: str) -> None:
    assert found == told
