import pytest

from {{ cookiecutter.package }}.wording import number, percent


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2007, "2007"),
        (12345, "12,345"),
        (12345.67, "12,346"),
        (3.14159, "3.14"),
        (1234.5, "1234"),
        (0.000012345, "1.23e-05"),
        (-4.0, "-4"),
        (True, "true"),
        (None, "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
        ("text", "text"),
    ],
)
def test_numbers_are_for_reading(value, written):
    """Three or four digits that matter, thousands apart."""
    assert written == number(value)


def test_shares_are_not_rounded_to_none_or_all():
    """A little is more than nothing, and almost all is not all."""
    space = "\N{NO-BREAK SPACE}"
    written = [percent(share) for share in (0, 0.0004, 0.5, 0.9885, 0.99951, 1)]
    expected = ["0", "under 0.1", "50", "98.9", "over 99.9", "100"]
    assert [f"{text}{space}%" for text in expected] == written
