"""The page of a generated project, in a real browser."""

import json
import shutil

import pytest
from conftest import KIT, served
from playwright.sync_api import sync_playwright

from scripts.demo import ask

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ARTIFACTS = KIT / ".artifacts"
DESKTOP, MOBILE = (1200, 800), (375, 740)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: sudo apt install chromium"),
]


@pytest.fixture(scope="module")
def service(default_project):
    """The address of the default project's service."""
    with served(default_project, "penguins") as address:
        yield address


@pytest.fixture(scope="module")
def examples(default_project):
    """Held-out rows with their truth."""
    return json.loads((default_project / "bundle/examples.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser, service):
    """Open the page at a size; at the end no tab may have complained or asked another host."""
    contexts, complaints = [], []

    def note(text):
        # Chromium logs every 4xx; that a wrong value is answered 422 is what one test wants.
        if "status of 422" not in text:
            complaints.append(text)

    def is_own(url):
        return url.startswith((service, "data:", "blob:"))

    def open_at(size, path="/", **options):
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: note(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: is_own(request.url) or complaints.append(request.url))
        page.goto(service + path)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert [] == complaints


def fill(page, row):
    """Type a row into the form, the way a person would."""
    for name, value in row.items():
        field = page.get_by_label(name.replace("_", " "), exact=True)
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value or "")
        else:
            field.fill("" if value is None else str(value))


def predict(page):
    """Press the button and return the answer's text."""
    page.get_by_role("button", name="Predict").click()
    return page.locator("#prediction").inner_text()


def width(page):
    return page.evaluate("document.documentElement.scrollWidth")


@pytest.mark.parametrize("size", [DESKTOP, MOBILE], ids=["desktop", "mobile"])
def test_page_answers_like_the_api(request, open_page, service, examples, size):
    """A row typed in by hand gets the API's answer, shown with its probabilities, and fits."""
    page, row = open_page(size), examples[3]["row"]
    fill(page, row)
    expected = ask(f"{service}/predict", {"rows": [row]})["predictions"][0]
    assert expected["prediction"] == predict(page)
    shares = page.locator(".share").all_inner_texts()
    best = max(expected["probabilities"].values())
    assert [expected["prediction"], f"{100 * best:.1f} %"] == shares[0].split("\n")
    assert len(expected["probabilities"]) == len(shares)
    assert 0 == page.locator(".warnings").count()
    assert size[0] == width(page)
    ARTIFACTS.mkdir(exist_ok=True)
    name = request.node.callspec.id
    page.screenshot(path=ARTIFACTS / f"page-{name}.png", full_page=True)


def test_page_warns(open_page, examples):
    """A value far from the training data is answered, with a word on it."""
    page = open_page(DESKTOP, color_scheme="dark")
    fill(page, {**examples[0]["row"], "body_mass_g": 90000})
    assert predict(page)
    assert ["body_mass_g: 90000 lies far outside the training range 2700 to 6300"] == (
        page.locator(".warnings li").all_inner_texts()
    )


def test_page_shows_examples_and_their_truth(open_page, examples):
    """The form starts with an example, shows the next one, and tells the truth after predicting."""
    page = open_page(DESKTOP)
    for example in examples[:2]:
        shown = page.get_by_label("bill length mm", exact=True)
        assert example["row"]["bill_length_mm"] == float(shown.input_value())
        assert "true answer" not in page.locator("#answer").inner_text()
        predict(page)
        assert page.locator(".truth").inner_text().endswith(f"true answer is {example['truth']}")
        page.get_by_role("button", name="Another example").click()


def test_page_shows_the_model(open_page, default_project):
    """Version and metrics, beside those of the baseline, are those of the card."""
    card = json.loads((default_project / "bundle/card.json").read_text(encoding="utf-8"))
    page = open_page(DESKTOP)
    assert card["version"] in page.locator("#facts").inner_text()
    accuracy = page.get_by_role("row", name="accuracy", exact=False).first.inner_text()
    shown = [f"{card[which]['accuracy']:.4g}" for which in ("metrics", "baseline")]
    assert ["accuracy", *shown] == accuracy.split()


def test_page_explains_beside_the_field(open_page, examples):
    """A value that is missing is named at its field, which gets the focus; Enter sends the form."""
    page = open_page(DESKTOP)
    fill(page, {**examples[0]["row"], "year": None})
    page.get_by_label("year", exact=True).press("Enter")
    error = page.locator(".error:not(:empty)")
    error.first.wait_for()
    assert "missing, expected a whole number" in error.all_inner_texts()
    assert "year" == page.evaluate("document.activeElement.labels[0].textContent")


def test_api_page_works_offline(open_page):
    """/docs shows the operations without a request to another host."""
    page = open_page(DESKTOP, "/docs")
    page.locator(".opblock-post").first.wait_for()
    assert "/predict" in page.locator(".opblock-post").first.inner_text()
