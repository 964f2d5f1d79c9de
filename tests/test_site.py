"""The documentation site: built and published by its workflow, and walked in a real browser."""

import functools
import http.server
import json
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import engine
import pytest
from conftest import PATIENCE_S, environment, generate
from playwright.sync_api import sync_playwright
from runner import TOOLS, repository
from test_browser import ARTIFACTS, CHROMIUM, DESKTOP, PHONE, SCHEMES, SIZES

PAGES = ("contract.md", "model.md", "api.md", "report.html", "openapi.json")
DEPLOY = ("ssh", "kubernetes", "none")
AWKWARD = (
    "Höhe [cm]",
    "a|b",
    "`tick` *star* _line_",
    "<script>document.title = 'taken over'</script>",
    "{{ config }} {% raw %}",
    "[x](gone.md) ![y](gone.png)",
    ":smile: (c) --> &amp;",
    "x" * 60,
)
AWKWARD_PAGE = """
import json, sys
from penguins.contract import Column, Contract, Target
from penguins.site import contract_page
names = json.loads(sys.argv[1])
columns = [Column(name, "categorical", categories=(*names, name), example=name) for name in names]
print(contract_page(Contract("multiclass", Target(names[0], tuple(names)), tuple(columns))))
"""
WALK = ("", "contract/", "model/", "api/", "runbooks/", "runbooks/roll-back/", "report.html")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")
needs_act = pytest.mark.skipif(
    not (engine.client() and (TOOLS / "act").exists()), reason="no Docker engine, or no act"
)


class Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = {""}, set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Note what can be linked to, and what is linked."""
        known = dict(attrs)
        self.anchors |= {known[name] for name in ("id", "name") if known.get(name)}
        self.links |= {known[name] for name in ("href", "src") if known.get(name) is not None}


def dead(site):
    """Name the internal links of a built site that lead nowhere."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    gone = set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            base = site if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in anchors:
                gone.add((path.relative_to(site).as_posix(), link))
    return gone


def build(project, folder):
    """Build the pages in a folder with the generator that a project has."""
    words = [project / ".venv/bin/zensical", "build", "--strict"]
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(NO_COLOR="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def serve(folder):
    """Serve a folder on a free port, for as long as this process lives."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def place_gh(runner, code):
    """Put a gh in the place of GitHub's, which answers one question, with an exit code."""
    path = runner.folder / "bin/gh"
    path.parent.mkdir(exist_ok=True)
    asked = "api --silent repos/Your-Org/Penguins/pages"
    path.write_text(
        f'#!/bin/sh\ntest "$*" = "{asked}" && test "$GH_TOKEN" = token && exit {code}\nexit 2\n'
    )
    path.chmod(0o755)


@pytest.fixture(scope="module")
def workflow(default_project, tmp_path_factory):
    """A repository, and a run of its site.yml."""
    with repository(tmp_path_factory.mktemp("site"), default_project) as runner:
        place_gh(runner, 0)
        run = runner.act("site.yml", "push", "--secret=GITHUB_TOKEN=token")
        assert 0 == run.code, run.text[-5000:]
        published = runner.folder.parent / "published"
        shutil.copytree(runner.folder / "artifacts/published", published)
        yield published, run


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser):
    """Open pages of a folder; at the end none may have complained, or asked another host."""
    contexts, complaints = [], []

    def go(folder, path, size=DESKTOP, scheme="light"):
        address = serve(folder)
        width, height = size
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE_S)
        page = context.new_page()
        own = (address, "data:", f"blob:{address}")
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith(own) or complaints.append(r.url))
        page.goto(address + path, wait_until="networkidle")
        return page

    yield go
    for context in contexts:
        context.close()
    assert [] == complaints


@pytest.fixture
def pages(request, tmp_path):
    """The pages of a project that was generated for a target, with stubs of those that are made."""
    project = generate(tmp_path, deploy=getattr(request, "param", "ssh"))
    for name in PAGES:
        (project / "docs" / name).write_text("# Made\n", encoding="utf-8")
    return project


def cells(page, nth=0):
    """The texts of a table, row by row, without its heads."""
    return (
        page.locator("article table")
        .nth(nth)
        .locator("tbody tr")
        .evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    )


@needs_act
def test_workflow_publishes_what_it_built(workflow):
    """Site.yml trains, builds the site, and hands it over to Pages, whose address it names."""
    _, run = workflow
    assert {"build": "success", "publish": "success"} == run.jobs
    assert "https://pages.example/" == run.outputs["page_url"]
    assert "No issues found" in run.text
    called = [(call["job"], call["action"]) for call in run.trace]
    assert [
        ("build", "setup-python"),
        ("build", "cache"),
        ("build", "upload-pages-artifact"),
        ("publish", "deploy-pages"),
    ] == called
    assert {"path": ".cache/pages/site"} == run.trace[2]["inputs"]


@needs_act
def test_workflow_says_how_to_turn_pages_on(runner):
    """Where Pages is off the run says what turns it on; a pull request is built alone."""
    built = "mkdir -p .cache/pages/site && touch .cache/pages/site/index.html"
    runner.change(".github/workflows/site.yml", "run: make site", f"run: {built}")
    place_gh(runner, 1)
    run = runner.act("site.yml", "push", "--secret=GITHUB_TOKEN=token")
    assert {"build": "success", "publish": "failure"} == run.jobs
    assert "This repository has no GitHub Pages: make github turns them on" in run.text
    assert "deploy-pages" not in {call["action"] for call in run.trace}
    shutil.rmtree(runner.folder / "artifacts/github-pages")
    proposed = runner.act("site.yml", "pull_request", branch="topic")
    assert (0, {"build": "success"}) == (proposed.code, proposed.jobs)


@needs_act
def test_no_link_is_dead(workflow):
    """Every page, picture, file and anchor that the published site links to is there."""
    site, _ = workflow
    assert set() == dead(site)
    assert {"openapi.json", "card.json", "contract.json"} <= {path.name for path in site.iterdir()}


@needs_act
@needs_browser
def test_the_contract_is_a_table(workflow, visit):
    """The table has the columns of contract.json, with their range or values and an example."""
    site, _ = workflow
    page = visit(site, "contract/")
    contract = json.loads((site / "contract.json").read_text(encoding="utf-8"))
    kinds = {"categorical": "category", "numeric": "number", "integer": "whole number"}
    shown = cells(page)
    assert [
        [
            column["name"],
            kinds[column["kind"]],
            "yes" if column.get("nullable") else "no",
            str(column["example"]),
        ]
        for column in contract["columns"]
    ] == [[*row[:3], row[4]] for row in shown]
    values = {row[0]: row[3] for row in shown}
    assert "Biscoe, Dream, Torgersen" == values["island"]
    assert values["bill_length_mm"].startswith("32.1 to 59.6; ")
    assert "species is predicted" in page.locator("article").inner_text()


@needs_act
@needs_browser
def test_the_card_is_readable(workflow, visit):
    """Metrics, version, data and libraries are those of card.json."""
    site, _ = workflow
    card = json.loads((site / "card.json").read_text(encoding="utf-8"))
    page = visit(site, "model/")
    accuracy = [f"{100 * card[which]['accuracy']:.1f}\u00a0%" for which in ("metrics", "baseline")]
    assert ["Accuracy", *accuracy] == cells(page)[0][:3]
    assert list(card["importance"]) == [row[0] for row in cells(page, 2)]
    facts = dict(cells(page, 3))
    assert (card["data"]["sha256"], card["git_commit"]) == (
        facts["SHA-256 of the data"],
        facts["Git commit"],
    )
    assert card["version"] in page.locator("article").inner_text()


@needs_act
@needs_browser
def test_the_api_has_every_operation(workflow, visit):
    """Each operation of openapi.json has its heading; /predict has the fields of the contract."""
    site, _ = workflow
    document = json.loads((site / "openapi.json").read_text(encoding="utf-8"))
    contract = json.loads((site / "contract.json").read_text(encoding="utf-8"))
    page = visit(site, "api/")
    heads = page.locator("article h3").evaluate_all("all => all.map(each => each.textContent)")
    operations = {f"{m.upper()} {path}" for path, known in document["paths"].items() for m in known}
    assert operations == {head.removesuffix("¶") for head in heads}
    fields = [row[0] for row in cells(page)]
    names = [column["name"] for column in contract["columns"]]
    assert ["rows", *(f"rows[].{name}" for name in [*names, "species"])] == fields
    assert 'curl "$URL/predict" --json' in page.locator("article pre").first.inner_text()
    page.locator("article summary", has_text="Errors").first.click()
    assert page.get_by_text("invalid: a value is not what the contract says").first.is_visible()


@needs_act
@needs_browser
@SIZES
@SCHEMES
def test_every_page_fits(request, workflow, visit, size, scheme):
    """Pages have titles, keep to the width of the screen, and follow the reader's colours."""
    site, _ = workflow
    card = json.loads((site / "card.json").read_text(encoding="utf-8"))
    titles = ("Overview", "Contract", "Model", "API", "Runbooks", "A model must go back")
    expected = [*(f"{title} - Penguins" for title in titles)]
    expected.append(f"Penguins: report of version {card['version']}")
    found, backgrounds = [], set()
    ARTIFACTS.mkdir(exist_ok=True)
    for path in WALK:
        page = visit(site, path, size, scheme)
        found.append(page.title())
        assert size[0] >= page.evaluate("document.documentElement.scrollWidth"), path
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        backgrounds.add(sum(map(int, color[4:-1].split(", ")[:3])) > 384)
        name = path.strip("/").replace("/", "-") or "index"
        page.screenshot(path=ARTIFACTS / f"site-{name}-{request.node.callspec.id}.png")
    assert expected == found
    assert {scheme == "light"} == backgrounds


@needs_act
@needs_browser
def test_search_finds_a_column(workflow, visit):
    """The search, which runs in the browser, leads from a column's name to the contract."""
    page = visit(workflow[0], "")
    page.keyboard.press("Control+k")
    page.keyboard.type("flipper_length_mm")
    page.get_by_role("link", name="Contract").last.wait_for()


@pytest.mark.parametrize("pages", DEPLOY, indirect=True)
def test_the_pages_of_every_target(default_project, pages):
    """With the pages of each answer, the site is built without a warning or a dead link."""
    run = build(default_project, pages)
    assert (0, True) == (run.returncode, "No issues found" in run.stdout), run.stdout
    assert set() == dead(pages / "site")


@pytest.mark.parametrize(
    ("link", "is_strict"),
    [
        ("[gone](gone.md)", True),
        ("[gone](architecture.md#gone)", True),
        ("![gone](gone.png)", False),
        ("[gone](gone.json)", False),
        ('<a href="../gone/">gone</a>', False),
    ],
    ids=["page", "anchor", "picture", "file", "html"],
)
def test_a_dead_link_is_seen(default_project, pages, link, is_strict):
    """A dead link is refused by the generator, or found here where that does not look."""
    with (pages / "docs/runbooks/store.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{link.replace('architecture', '../architecture')}\n")
    run = build(default_project, pages)
    assert is_strict == bool(run.returncode), run.stdout
    assert {"runbooks/store/index.html"} == {path for path, _ in dead(pages / "site")}


@needs_browser
def test_awkward_names_are_shown_as_they_are(default_project, pages, visit):
    """Whatever columns and categories are called, the table has them letter by letter."""
    made = subprocess.check_output(
        [default_project / ".venv/bin/python", "-c", AWKWARD_PAGE, json.dumps(AWKWARD)],
        cwd=default_project,
        text=True,
    )
    (pages / "docs/contract.md").write_text(made, encoding="utf-8")
    run = build(default_project, pages)
    assert 0 == run.returncode, run.stdout
    page = visit(pages / "site", "contract/", PHONE)
    assert "Contract - Penguins" == page.title()
    shown = cells(page)
    assert list(AWKWARD) == [row[0] for row in shown]
    assert list(AWKWARD) == [row[4] for row in shown]
    values = page.locator("article tbody tr").first.locator("details code").all_text_contents()
    assert [*AWKWARD, AWKWARD[0]] == values
    assert PHONE[0] >= page.evaluate("document.documentElement.scrollWidth")
