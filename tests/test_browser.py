"""The page of a generated project, in a real browser."""

import csv
import io
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from conftest import KIT, PATIENCE_S, Workspace, served
from playwright.sync_api import sync_playwright

from scripts.demo import ask

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ARTIFACTS = KIT / ".artifacts"
DESKTOP, PHONE = (1280, 800), (390, 844)
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
UNTIL_BUNDLE = """
from penguins import settings, stages
for name in ("snapshot", "contract", "prepare", "train", "evaluate", "package"):
    stages.STAGES[name](settings.load())
"""
AWKWARD = ["Höhe (cm)", "a.b", "<b>bold</b>", 'with "quotes"', "x" * 60]

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
def table(default_project):
    """The rows of the raw table, as text, under its heading."""
    lines = (default_project / "data/raw/penguins.csv").read_text(encoding="utf-8").splitlines()
    return list(csv.reader(lines))


@pytest.fixture(scope="module", params=["regression", "binary", "clustering"])
def garden(request, default_project, tmp_path_factory):
    """The service of another task, on columns of all kinds with awkward names."""
    generator = np.random.default_rng(7)
    workspace = Workspace(default_project, tmp_path_factory.mktemp("garden") / "garden")
    numbers = generator.normal(100, 15, (200, 3)).round(1)
    days = np.datetime64("2024-01-01") + generator.integers(0, 700, 200)
    target = {
        "regression": numbers.sum(axis=1).round(2).tolist(),
        "binary": (numbers[:, 0] > 100).tolist(),
        "clustering": None,
    }[request.param]
    heads = [*AWKWARD, "planted", "treated"]
    rows = [
        [*given, generator.choice(["Süd", "a,b", ""]), generator.choice(["1a", "2b"]), day, flag]
        for given, day, flag in zip(
            numbers, days, generator.choice(["yes", "no"], 200), strict=True
        )
    ]
    if target:
        heads.append("goal")
        rows = [[*row, goal] for row, goal in zip(rows, target, strict=True)]
    with (workspace.folder / "garden.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([heads, *rows])
    sections = {"APP_DATA__SOURCE": "garden.csv", "APP_DATA__TARGET": "goal" if target else "null"}
    workspace.run(".venv/bin/python", "-c", UNTIL_BUNDLE, **sections)
    with served(workspace.folder, "penguins") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def tab(browser, service):
    """A tab to run the page's functions in."""
    page = browser.new_page()
    page.goto(service)
    yield page
    page.close()


@pytest.fixture
def open_page(browser, service):
    """Open the page at a size; at the end no tab may have complained or asked another host."""
    contexts, complaints = [], []

    def open_at(size=DESKTOP, path="/", address=service, refused=(422,), answers=None, **options):
        def note(text):
            # Chromium logs every 4xx and 5xx; some tests want one.
            if not any(f"status of {status}" in text for status in refused):
                complaints.append(text)

        def is_own(url):
            return url.startswith((address, "data:", f"blob:{address}"))

        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE_S)
        page = context.new_page()
        page.on("console", lambda message: note(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: is_own(request.url) or complaints.append(request.url))
        for pattern, handler in (answers or {}).items():
            page.route(f"**{pattern}", handler)
        page.goto(address + path)
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
    with page.expect_response("**/predict"):
        page.get_by_role("button", name="Predict").click()
    page.locator("#answer:not([aria-busy])").wait_for()
    return page.locator("#prediction").inner_text()


def drop(page, text, name="rows.csv"):
    """Drop a file onto the zone and wait until its rows are done; return what is said of them."""
    put(page, text, name)
    page.locator("#batch-summary p").first.wait_for()
    return page.locator("#batch-summary p").all_inner_texts()


def put(page, text, name="rows.csv"):
    """Drop a file onto the zone."""
    page.locator("#many").wait_for()
    content = text if isinstance(text, bytes) else text.encode()
    transfer = page.evaluate_handle(
        """([bytes, name]) => {
            const transfer = new DataTransfer();
            const content = Uint8Array.from(bytes, (byte) => byte.charCodeAt(0));
            transfer.items.add(new File([content], name));
            return transfer;
        }""",
        [content.decode("latin-1"), name],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def shown(page):
    """The rows of the result table that are on the screen, as texts."""
    return page.locator("#batch-body tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


def saved(page):
    """The file that the button saves: its name and its text."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    return download.value.suggested_filename, download.value.path().read_bytes().decode()


def written(rows, delimiter=",", end="\n"):
    """Rows as delimited text."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


def width(page):
    return page.evaluate("document.documentElement.scrollWidth")


def altered(change):
    """A handler that changes what the service answers."""

    def handle(route):
        answer = route.fetch()
        content = answer.json()
        change(content)
        route.fulfill(response=answer, json=content)

    return handle


@SIZES
def test_page_answers_like_the_api(request, open_page, service, examples, size):
    """A row typed in by hand gets the API's answer, shown with its probabilities, and fits."""
    page, row = open_page(size), examples[3]["row"]
    fill(page, row)
    answer = ask(f"{service}/predict", {"rows": [row]})
    expected = answer["predictions"][0]
    assert expected["prediction"] == predict(page)
    shares = page.get_by_role("table", name="Probabilities").locator("tr").all_inner_texts()
    best = max(expected["probabilities"].values())
    assert [expected["prediction"], f"{100 * best:.1f} %"] == shares[0].split("\t")[::2]
    assert len(expected["probabilities"]) == len(shares)
    latency, version = page.locator(".facts").inner_text().split(" · ")[:2]
    assert 0 < float(latency.removesuffix(" ms")) < 60_000
    assert f"version {answer['model']['version']}" == version
    assert 0 == page.locator(".warnings").count()
    assert size[0] == width(page)
    ARTIFACTS.mkdir(exist_ok=True)
    name = request.node.callspec.id
    page.screenshot(path=ARTIFACTS / f"page-{name}.png", full_page=True)


def test_page_warns(open_page, examples):
    """A value far from the training data is answered, with a word on it."""
    page = open_page()
    fill(page, {**examples[0]["row"], "body_mass_g": 90000})
    assert predict(page)
    assert ["body_mass_g: 90000 lies far outside the training range 2700 to 6300"] == (
        page.locator(".warnings li").all_inner_texts()
    )


def test_page_shows_examples_and_their_truth(open_page, examples):
    """The form starts with an example, shows others, and tells the truth after predicting."""
    page = open_page()
    for number, example in enumerate(examples[:2], 1):
        page.get_by_role("button", name=f"Fill in example {number}").click()
        shown = page.get_by_label("bill length mm", exact=True)
        assert example["row"]["bill_length_mm"] == float(shown.input_value())
        assert "true answer" not in page.locator("#answer").inner_text()
        predict(page)
        assert page.locator(".truth").inner_text().endswith(f"true answer is {example['truth']}")


def test_other_and_missing_values_are_sent(open_page, examples):
    """A category of one's own and a missing value reach the service as they were meant."""
    page = open_page()
    page.get_by_label("island", exact=True).select_option("something else…")
    page.get_by_label("island, something else…").fill("Mars")
    page.get_by_label("sex", exact=True).select_option("missing")
    page.get_by_label("bill length mm", exact=True).fill("")
    with page.expect_request("**/predict") as sent:
        predict(page)
    expected = {**examples[0]["row"], "island": "Mars", "sex": None, "bill_length_mm": None}
    assert [expected] == sent.value.post_data_json["rows"]
    assert "'Mars' was not seen" in page.locator(".warnings").inner_text()


def test_page_remembers_what_was_asked(open_page, examples):
    """Earlier answers stand in a table with what had changed; pressing one fills in its row."""
    page = open_page()
    first = predict(page)
    page.get_by_label("bill length mm", exact=True).fill("60")
    second = predict(page)
    rows = page.locator("#history tbody tr").all_inner_texts()
    assert [[second, "bill length mm: 60"], [first, "\N{EN DASH}"]] == [
        row.split("\t")[:2] for row in rows
    ]
    page.locator("#history button").last.click()
    length = page.get_by_label("bill length mm", exact=True).input_value()
    assert examples[0]["row"]["bill_length_mm"] == float(length)


def test_page_shows_the_model(open_page, default_project):
    """Version, metrics beside the baseline's, and the bars are those of the card."""
    card = json.loads((default_project / "bundle/card.json").read_text(encoding="utf-8"))
    page = open_page()
    page.locator("#facts", has_text=card["version"]).wait_for()
    accuracy = page.get_by_role("row", name="accuracy", exact=False).first.inner_text()
    figures = [f"{card[which]['accuracy']:.3g}" for which in ("metrics", "baseline")]
    assert ["accuracy", *figures] == accuracy.split()
    importance = page.get_by_role("table", name="What the model looks at")
    names = importance.locator("tbody th").all_inner_texts()
    assert [name.replace("_", " ") for name in card["importance"]] == names
    bars = importance.locator("rect.fill").evaluate_all(
        "bars => bars.map(bar => +bar.getAttribute('width').slice(0, -1))"
    )
    first, second = list(card["importance"].values())[:2]
    assert pytest.approx(second["mean"] / first["mean"], rel=0.01) == bars[1] / bars[0]
    folds = page.get_by_role("img", name="by fold").get_attribute("aria-label")
    assert f"mean {card['cross_validation']['mean']:.3f}" in folds
    page.get_by_text("Data and columns").click()
    assert card["data"]["sha256"] in page.locator("details[open]").inner_text()


def test_page_explains_beside_the_field(open_page, examples):
    """A value that is missing is named at its field, which gets the focus; Enter sends the form."""
    page = open_page()
    fill(page, {**examples[0]["row"], "year": None})
    page.get_by_label("bill length mm", exact=True).press("Enter")
    error = page.locator("#fields .error:not(:empty)")
    error.first.wait_for()
    assert ["missing, expected a whole number"] == error.all_inner_texts()
    assert "year" == page.evaluate("document.activeElement.labels[0].textContent")


@SIZES
def test_file_is_answered_row_by_row(open_page, service, table, size):
    """Each row of a file gets the API's answer or its own error, on the page and in the file."""
    page, (head, *rows) = open_page(size), table
    rows = [list(row) for row in rows[:120]]
    place = head.index("bill_length_mm")
    note = "bill_length_mm: expected a number, not 'long'"
    rows[61][place], rows[60][place], rows[7] = "long", "900", rows[7][:-1]
    said = drop(page, written([head, *rows]))
    good = [i for i in range(120) if i not in (7, 61)]
    assert said[0].startswith("118 rows answered in ")
    assert "No answer to 2 rows: the notes say why" == said[2]
    names = ["island", "bill_length_mm", "sex"]
    columns = {name: head.index(name) for name in head if name != "species"}
    kinds = {name: str if name in names[::2] else float for name in columns}
    asked = [
        {
            name: None if rows[i][j] == "NA" else kinds[name](rows[i][j])
            for name, j in columns.items()
        }
        for i in good
    ]
    expected = ask(f"{service}/predict", {"rows": asked})["predictions"]
    counts = Counter(each["prediction"] for each in expected).most_common()
    assert ", ".join(f"{label}: {count}" for label, count in counts) == said[1]
    first = expected[0]
    chance = f"{100 * first['probabilities'][first['prediction']]:.1f} %"
    table = shown(page)
    assert ["1", first["prediction"], chance, "", *rows[0]] == table[0]
    assert ["8", "no answer", "", "7 fields under 8 headings", *rows[7]] == table[7]
    assert 50 == len(table)
    page.get_by_role("button", name="Next").click()
    assert [str(i) for i in range(51, 101)] == [row[0] for row in shown(page)]
    page.get_by_label("Show").select_option("rows with warnings")
    assert [["61", "bill_length_mm: 900 lies far outside the training range 32.1 to 59.6"]] == [
        [row[0], row[3]] for row in shown(page)
    ]
    page.get_by_label("Show").select_option("rows without an answer")
    assert ["8", "62"] == [row[0] for row in shown(page)]
    assert note == shown(page)[1][3]
    assert size[0] == width(page)
    name, text = saved(page)
    assert "rows-predictions.csv" == name
    lines = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert 120 == len(lines)
    assert [each["prediction"] for each in expected] == [lines[i]["prediction"] for i in good]
    shares = [float(lines[i]["probability_Gentoo"]) for i in good]
    assert pytest.approx([each["probabilities"]["Gentoo"] for each in expected]) == shares
    assert (note, "") == (lines[61]["error"], lines[61]["prediction"])
    assert rows[0] == [lines[0][name] for name in head]


def test_spreadsheet_file_gets_the_same_answers(open_page, table):
    """Semicolons, decimal commas, a byte order mark and CRLF, as Excel writes them."""
    head, *rows = table
    page = open_page()
    drop(page, written([head, *rows[:30]]))
    plain = shown(page)
    german = [[value.replace(".", ",") for value in row] for row in rows[:30]]
    text = "\ufeff" + written([head, *german], ";", "\r\n") + ";;;;;;;\r\n"
    drop(page, text.encode(), "Mappe1.csv")
    assert [row[:3] for row in plain] == [row[:3] for row in shown(page)]
    lines = saved(page)[1].removeprefix("\ufeff").splitlines()
    assert 31 == len(lines)
    probability = lines[1].split(";")[9]
    assert 0 < float(probability.replace(",", ".")) <= 1
    assert "." not in probability


def test_large_file_stays_small_on_the_page(open_page, table):
    """Of 20,000 rows only a page is in the document; the last one is a press away."""
    head, *rows = table
    page = open_page()
    said = drop(page, written([head, *(rows * 59)[:20_000]]))
    assert said[0].startswith("20,000 rows answered in ")
    page.get_by_role("button", name="Last page").click()
    assert "19,951 to 20,000 of 20,000" == page.locator("#page").inner_text()
    assert 50 == len(shown(page))


def test_piece_that_is_too_large_is_halved(open_page, table):
    """On 413 the rows are sent in smaller pieces, until all are answered."""
    sizes = []

    def limit(route):
        sizes.append(len(route.request.post_data_json["rows"]))
        if sizes[-1] <= 20:
            route.continue_()
        else:
            route.fulfill(status=413, json={"error": {"message": "too large", "details": []}})

    page = open_page(refused=(413,), answers={"/predict": limit})
    said = drop(page, written(table[:101]))
    assert said[0].startswith("100 rows answered in ")
    assert [100, 50, 25, 12, 12] == sizes[:5]
    assert 100 == sum(size for size in sizes if size <= 20)


def test_busy_service_is_asked_again(open_page, table):
    """429 and 503 with Retry-After delay a file, and lose no row."""
    asked = []

    def busy(route):
        asked.append(route)
        if len(asked) <= 2:
            status = (429, 503)[len(asked) - 1]
            route.fulfill(status=status, headers={"Retry-After": "0.01"}, json={})
        else:
            route.continue_()

    page = open_page(refused=(429, 503), answers={"/predict": busy})
    assert drop(page, written(table[:11]))[0].startswith("10 rows answered in ")
    assert 3 == len(asked)


def test_file_can_be_stopped(open_page, table):
    """Stop leaves the answers that have come, and says so."""
    head, *rows = table
    held = []

    def hold(route):
        if held:
            return held.append(route)
        held.append(None)
        return route.continue_()

    page = open_page(answers={"/predict": hold})
    put(page, written([head, *rows * 6]))
    page.get_by_text("1,000 of 2,064 rows").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator("#batch-summary p").first.wait_for()
    said = page.locator("#batch-summary p").all_inner_texts()
    assert said[0].startswith("Stopped. 1,000 rows answered in ")
    page.get_by_label("Show").select_option("rows without an answer")
    assert "1 to 50 of 1,064" == page.locator("#page").inner_text()


def test_file_that_fits_no_column_is_refused(open_page):
    """A file without the columns is named, with what is lacking."""
    page = open_page()
    put(page, "island,year\nDream,2007\n")
    drop(page, "island,year\nDream,2007\n")
    taken = "bill_length_mm, bill_depth_mm, flipper_length_mm, body_mass_g, sex"
    assert f"Not in the file, so taken as missing: {taken}" == (
        page.locator("#batch-summary p").last.inner_text()
    )
    put(page, "island,sex\nDream,male\n", "half.csv")
    alert = page.locator("#batch-alert:not(:empty)")
    alert.wait_for()
    expected = "half.csv cannot be used: its first line lacks year; it has island, sex"
    assert expected == alert.inner_text()
    assert not page.locator("#batch-result").is_visible()


COLUMNS = [
    {"name": "size", "kind": "numeric", "nullable": False, "categories": []},
    {"name": "Höhe", "kind": "categorical", "nullable": True, "categories": ["a", "b"]},
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size,Höhe\n1.5,a\n", [[1.5, "a"]]),
        ("\ufeffsize;Höhe\r\n1,5;a\r\n\r\n", [[1.5, "a"]]),
        ("sep=;\r\nsize;Höhe\r\n1.234,5;b\r\n", [[1234.5, "b"]]),
        ("Höhe\tsize\nb\t-2e3\n", [[-2000, "b"]]),
        ('size,Höhe\n"1,234","a, ""b""\nc"\n', [[1234, 'a, "b"\nc']]),
        ('size,Höhe\n"1,5",a\n', [[1.5, "a"]]),
        ("size;Höhe\n1,234;a\n0,5;b\n", [[1.234, "a"], [0.5, "b"]]),
        ("size;Höhe\n1.234;a\n", [[1.234, "a"]]),
        ("size,Höhe\r1,NA\r2,\r", [[1, None], [2, None]]),
        ("Size , HÖHE\n 3 , a \n", [[3, "a"]]),
        ("size,Höhe\nx,a\n1e999,a\n", [["x", "a"], ["1e999", "a"]]),
        ("size,Ho\u0308he\n1,a", [[1, "a"]]),
        ("size,Höhe\n1,\u00e9\n".encode("cp1252"), [[1, "é"]]),
        ("size\tHöhe\n1\té\n".encode("utf-16"), [[1, "é"]]),
        ('size,Höhe\n1,"a\n', "a quote is not closed in row 1"),
        ("", "its first line lacks size, Höhe; it has nothing"),
        ("else\n1\n", "its first line lacks size, Höhe; it has else"),
    ],
    ids=lambda value: None if isinstance(value, list) else repr(value)[:40],
)
def test_reader(tab, text, expected):
    """The page's reader takes what spreadsheets and programs write."""
    content = text if isinstance(text, bytes) else text.encode()
    found = tab.evaluate(
        """async ([bytes, columns]) => {
            const { decode, read, value } = await import("/csv.js");
            try {
                const text = decode(new Uint8Array(bytes).buffer);
                const { rows, places, decimal } = read(text, columns);
                return rows.map((row) =>
                    columns.map((column, i) => value(row[places[i]], column, decimal)),
                );
            } catch (error) {
                return error.message;
            }
        }""",
        [list(content), COLUMNS],
    )
    assert expected == found


def test_writer_and_reader_agree(tab):
    """What the page writes, Python's reader reads."""
    rows = [["a,b", 'say "x"', "two\nlines", "é"], ["", "1;2", " s ", "plain"]]
    text = tab.evaluate(
        "async (rows) => (await import('/csv.js')).write([...rows, [null, 1.5]], ';', ',')", rows
    )
    expected = [*rows, ["", "1,5"]]
    assert expected == list(csv.reader(io.StringIO(text, newline=""), delimiter=";"))


def test_key_is_asked_for_only_where_it_is_wanted(open_page):
    """On 401 a field appears, the key is sent from then on, and a wrong one is asked for again."""

    def guard(route):
        if route.request.headers.get("authorization") == "Bearer open sesame":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": {"message": "no key", "details": []}})

    paths = dict.fromkeys(("/model", "/predict", "/openapi.json"), guard)
    page = open_page(refused=(401,), answers=paths)
    for key, said in (("wrong", "This service wants an API key."), ("open sesame", "not accepted")):
        page.get_by_text(said).wait_for()
        assert "API key" == page.evaluate("document.activeElement.labels[0].textContent")
        page.keyboard.type(key)
        page.keyboard.press("Enter")
    assert predict(page)
    assert 0 == page.get_by_label("API key").count()
    page.reload()
    assert predict(page)
    assert "key" not in open_page().locator("body").inner_text().lower()


def test_truth_is_sent_where_the_service_takes_it(open_page):
    """What it really was goes to the feedback route with the prediction's id; refusals are said."""
    sent, status = [], [200, 404]

    def take(route):
        sent.append(route.request.post_data_json)
        message = {"error": {"message": "unknown prediction 'x-0'", "details": []}}
        code = status[len(sent) - 1]
        route.fulfill(status=code, json={} if code == 200 else message)

    def with_ids(content):
        content["predictions"][0]["id"] = "x-0"
        content["request_id"] = "request-7"

    answers = {
        "/openapi.json": altered(lambda content: content["paths"].update({"/feedback": {}})),
        "/predict": altered(with_ids),
        "/feedback": take,
    }
    page = open_page(refused=(404,), answers=answers)
    predict(page)
    assert page.locator(".facts").inner_text().endswith("request request-7")
    for said in ("Recorded: Gentoo", "Not recorded: unknown prediction 'x-0'"):
        page.get_by_label("What was it really?").select_option("Gentoo")
        page.get_by_role("button", name="Record").click()
        page.get_by_text(said).wait_for()
    assert [{"truths": [{"prediction_id": "x-0", "label": "Gentoo"}]}] * 2 == sent
    answers["/openapi.json"] = altered(lambda content: content["paths"].pop("/feedback"))
    plain = open_page(answers=answers)
    predict(plain)
    assert 0 == plain.get_by_label("What was it really?").count()


def test_page_follows_a_change_of_the_model(open_page, examples):
    """An answer of another version makes the page show that one's card, and keeps the form."""
    current = {}

    def model(content):
        content["card"]["version"] = current.get("version", content["card"]["version"])

    def answer(content):
        current["version"] = content["model"]["version"] = "newer"

    page = open_page(answers={"/model": altered(model), "/predict": altered(answer)})
    page.get_by_label("bill length mm", exact=True).fill("44")
    predict(page)
    page.get_by_text("The service changed to version newer.").wait_for()
    assert "newer" in page.locator("#facts").inner_text()
    assert "44" == page.get_by_label("bill length mm", exact=True).input_value()


def test_page_without_a_model_says_so(open_page):
    """503 is shown with its reason; once there is a model, trying again brings the form."""
    answers = []

    def empty(route):
        answers.append(route)
        if len(answers) == 1:
            message = "no model is loaded: bundle not found"
            route.fulfill(status=503, json={"error": {"message": message, "details": []}})
        else:
            route.continue_()

    page = open_page(refused=(503,), answers={"/model": empty})
    page.get_by_text("no model is loaded: bundle not found").wait_for()
    assert not page.locator("#form").is_visible()
    page.get_by_role("button", name="Try again").click()
    assert predict(page)
    assert not page.locator("#notice").is_visible()


FOCUSED = """() => {
    const node = document.activeElement;
    const drawn = [node, node.parentNode, node.nextElementSibling].filter(Boolean);
    const isSeen = drawn.some((each) => {
        const style = getComputedStyle(each);
        const isDrawn = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        return isDrawn && style.opacity !== "0";
    });
    const name = node.ariaLabel ?? node.labels?.[0]?.textContent ?? node.textContent;
    return [name, isSeen];
}"""


def test_keyboard_reaches_everything(open_page, examples, tmp_path):
    """Tab visits all controls in reading order, each with a visible focus; no mouse is needed."""
    page = open_page()
    # Playwright does not wait until choosers are caught, so this is asked for well before.
    page.on("filechooser", lambda _: None)
    page.locator("#form").wait_for()
    visited = []
    while not visited or visited[-1] != "Save an example file":
        page.keyboard.press("Tab")
        name, is_seen = page.evaluate(FOCUSED)
        assert is_seen, name
        visited.append(name)
        if name == "Predict":
            with page.expect_response("**/predict"):
                page.keyboard.press("Space")
            page.locator("#answer:not([aria-busy])").wait_for()
        assert len(visited) < 40
    columns = [name.replace("_", " ") for name in examples[0]["row"]]
    numbers = [f"Fill in example {i + 1}" for i in range(len(examples))]
    top = ["Skip to the content", "A file", "The model", "API", "Metrics"]
    end = ["Predict", "What was it really?", "Record"]
    end += ["Drop a CSV here, or choose a file", "Save an example file"]
    assert [*top, *numbers, *columns, *end] == visited
    assert page.locator("#prediction").inner_text()
    page.keyboard.press("Shift+Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    path = tmp_path / "one.csv"
    rows = [list(examples[0]["row"]), ["" if v is None else v for v in examples[0]["row"].values()]]
    path.write_text(written(rows))
    chooser.value.set_files(path)
    page.locator("#batch-summary p").first.wait_for()
    assert [["1", examples[0]["prediction"]["prediction"]]] == [row[:2] for row in shown(page)]


UNNAMED = """() => [...document.querySelectorAll("a, button, input, select, progress, [role]")]
    .concat([...document.querySelectorAll("nav, section")])
    .filter((node) => !(
        node.getAttribute("aria-label")
        || document.getElementById(node.getAttribute("aria-labelledby"))?.textContent
        || [...(node.labels ?? [])].some((label) => label.textContent.trim())
        || (/^(A|BUTTON)$/.test(node.tagName) && node.textContent.trim())
        || ["status", "alert"].includes(node.getAttribute("role"))
    ))
    .map((node) => node.outerHTML)"""

FAINT = """() => {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const channels = (colour) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const light = (colour) => {
        const linear = channels(colour).slice(0, 3).map((value) => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const paper = (node) => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (channels(colour)[3] === 255) return colour;
        }
    };
    const contrast = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const found = {};
    for (const node of document.querySelectorAll("body, body *")) {
        if (!node.checkVisibility() || node.disabled || node.namespaceURI.endsWith("svg")) continue;
        const style = getComputedStyle(node);
        const hasText = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
        const name = `${node.tagName} ${node.id} ${node.className}`;
        if (hasText || "value" in node) found[name] = [contrast(style.color, paper(node)), 4.5];
        if (/INPUT|SELECT/.test(node.tagName) && style.opacity === "1") {
            found[`edge of ${name}`] = [contrast(style.borderTopColor, paper(node.parentNode)), 3];
        }
    }
    return found;
}"""


@SCHEMES
@SIZES
def test_page_can_be_read(open_page, examples, table, scheme, size):
    """Controls have names, ids are unique, and every text stands out from what is behind it."""
    page = open_page(size, color_scheme=scheme)
    fill(page, {**examples[0]["row"], "body_mass_g": 90000})
    predict(page)
    predict(page)
    head, *rows = table
    drop(page, written([head, *rows[:3], [*rows[3][:-1], "soon"]]))
    page.get_by_label("year", exact=True).fill("")
    page.get_by_label("year", exact=True).press("Enter")
    page.locator("#fields .error:not(:empty)").wait_for()
    assert [] == page.evaluate(UNNAMED)
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids))
    assert ["Penguins"] == page.locator("h1").all_inner_texts()
    assert "polite" == page.locator("#answer-body").get_attribute("aria-live")
    found = page.evaluate(FAINT)
    assert len(found) > 30
    assert {} == {name: ratio for name, (ratio, least) in found.items() if ratio < least}
    assert [] == page.evaluate("document.getAnimations()")


def test_dark_differs_from_light(open_page):
    """The page follows the system's choice of dark or light."""
    pictures = {}
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        predict(page)
        pictures[scheme] = page.screenshot(path=ARTIFACTS / f"page-{scheme}.png")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (scheme == "light") == (sum(map(int, colour[4:-1].split(","))) > 384)
    assert pictures["light"] != pictures["dark"]


@SIZES
def test_other_tasks_and_awkward_columns(request, open_page, garden, size):
    """Every task gets its form, its answer, its file and its card; odd names break nothing."""
    examples = ask(f"{garden}/model")["examples"]
    page = open_page(size, address=garden)
    for number, example in enumerate(examples[:3], 1):
        page.get_by_role("button", name=f"Fill in example {number}").click()
        with page.expect_request("**/predict") as sent:
            label = predict(page)
        assert sent.value.post_data_json["rows"] == [
            {**example["row"], "planted": example["row"]["planted"][:10]}
        ]
        answer = example["prediction"]["prediction"]
        expected = {"float": f"{answer:,.5g}", "bool": json.dumps(answer), "int": f"Group {answer}"}
        assert expected[type(answer).__name__] == label
    page.get_by_label("yes", exact=True).check(force=True)
    page.get_by_label("planted", exact=True).fill("2024-02-29")
    with page.expect_request("**/predict") as sent:
        predict(page)
    row = sent.value.post_data_json["rows"][0]
    assert ("yes", "2024-02-29") == (row["treated"], row["planted"])
    page.get_by_label("a.b", exact=True).fill("")
    page.get_by_label("a.b", exact=True).press("Enter")
    page.locator("#fields .error:not(:empty)").wait_for()
    assert "a.b" == page.evaluate("document.activeElement.labels[0].textContent")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save an example file").click()
    drop(page, download.value.path().read_bytes())
    assert len(examples) == len(shown(page))
    assert ["rows answered"] == [
        line[2:15] for line in page.locator("#batch-summary p").all_inner_texts()[:1]
    ]
    given = csv.DictReader(io.StringIO(saved(page)[1].removeprefix("\ufeff")))
    assert [str(each["prediction"]["prediction"]).lower() for each in examples] == [
        line["prediction"] for line in given
    ]
    assert size[0] == width(page)
    ARTIFACTS.mkdir(exist_ok=True)
    name = request.node.callspec.id
    page.screenshot(path=ARTIFACTS / f"page-{name}.png", full_page=True)


def test_api_page_works_offline(open_page):
    """/docs shows the operations without a request to another host."""
    page = open_page(path="/docs")
    page.locator(".opblock-post").first.wait_for()
    assert "/predict" in page.locator(".opblock-post").first.inner_text()
