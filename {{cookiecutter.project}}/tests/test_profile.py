from {{ cookiecutter.package }}.profile import histogram


def test_histograms():
    """Even quantiles are level bars; ties stand out; few whole numbers have a bar each."""
    assert [1.0] * 20 == histogram(range(0, 101, 5))["bars"]
    assert [1.0] == histogram([3.0, 3.0, 3.0])["bars"]
    bars = histogram([0.0] * 11 + [100.0] * 10)["bars"]
    assert (1.0, 20) == (bars[0], len(bars))
    assert [0.75, 1.0, 0.75] == histogram([1.0, 1, 2, 2, 3, 3], whole=True)["bars"]
    far = histogram([-1e6, *range(19), 1e6])
    assert (0.0, 18.0, True) == (far["low"], far["high"], far["tails"])
