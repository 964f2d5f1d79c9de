import pytest

from {{ cookiecutter.package }} import markup


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("Höhe (cm)", "Höhe (cm)"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](gone.md) | `a` *b*", "&#91;x](gone.md) | `a` *b*"),
        (True, "True"),
    ],
)
def test_text(given, written):
    """Neither a tag nor a link can begin in what data hold."""
    assert written == markup.text(given)


def test_table():
    """Cells are taken as they are, one row to a line."""
    expected = "<table>\n<thead><tr><th>A</th><th>B</th></tr></thead>\n<tbody>\n"
    expected += "<tr><td>1</td><td>2</td></tr>\n<tr><td>3</td><td>4</td></tr>\n</tbody>\n</table>"
    assert expected == markup.table(["A", "B"], [["1", "2"], ["3", "4"]])


def test_a_fence_is_longer_than_those_in_it():
    """What is fenced cannot end its block."""
    assert "````sh\necho '```'\n````" == markup.fenced("sh", "echo '```'")
    assert '```json\n{\n  "ö": 1\n}\n```' == markup.shown({"ö": 1})
