"""From what the monitor found to GitHub: metrics, dashboards, alerts, and who is told."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from alarm import SAMPLE, answering, chain, program, raised, until, watched
from conftest import generate, wait_until_answered

NUMBERS = re.compile(r"(?<=[=<>*] )\d+(?:\.\d+|e6)?(?=\s)|(?<=for: )\d+")


def run(*words, folder):
    """Run a command; give back its exit code and all that it said."""
    done = subprocess.run(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A generated project."""
    return generate(tmp_path_factory.mktemp("alerts"))


@pytest.fixture(scope="module")
def rules(project):
    """The alerts of the project, by name."""
    groups = yaml.safe_load((project / "monitoring/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_prometheus_takes_its_configuration(project):
    """Prometheus knows every word of its configuration and of the rules."""
    words = (program("promtool"), "check", "config", "prometheus.yml")
    code, said = run(*words, folder=project / "monitoring")
    assert 0 == code, said
    assert "SUCCESS: 15 rules found" in said


def test_rules_fire_when_they_should(project):
    """The rules' own tests pass, and there are some for every alert."""
    promtool, folder = program("promtool"), project / "monitoring"
    code, said = run(promtool, "test", "rules", "alerts_test.yml", folder=folder)
    assert 0 == code, said
    tests = yaml.safe_load((folder / "alerts_test.yml").read_text())["tests"]
    cases = [(case, "exp_alerts" in case) for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case, fires in cases if fires}
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    named = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert named == fires == {case["alertname"] for case, fires in cases if not fires}


def changed(rules):
    """Change each threshold, bucket and duration of an alert, one at a time, up and down."""
    text = yaml.safe_dump(rules, width=1000)
    for found in NUMBERS.finditer(text):
        before, number, after = text[: found.start()], found[0], text[found.end() :]
        for factor in (2, 0.5):
            value = f"{float(number) * factor:g}" if float(number) else "5"
            if before.endswith("for: "):
                # A minute that is halved is given in seconds.
                value = f"{float(value) * 60:g}s"
                yield number, value, before + value + after.removeprefix("m")
            else:
                yield number, value, before + value + after


def test_a_changed_threshold_fails_the_rules_tests(project, tmp_path):
    """No number of an alert can be doubled or halved without its tests saying so."""
    promtool, folder = program("promtool"), project / "monitoring"
    content = yaml.safe_load((folder / "alerts_test.yml").read_text())
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]

    def passes(test, alert, rules):
        cases = [case for case in test["alert_rule_test"] if case["alertname"] == alert]
        own = {**content, "tests": [{**test, "alert_rule_test": cases}]}
        if not any("for" in rule for rule in rules):
            own["evaluation_interval"] = "1m"
        (tmp_path / "alerts_test.yml").write_text(yaml.safe_dump(own))
        words = (promtool, "test", "rules", "alerts_test.yml")
        return not cases or run(*words, folder=tmp_path)[0] == 0

    passed, count = [], 0
    for group in groups:
        records = [rule for rule in group["rules"] if "record" in rule]
        for alert in {rule["alert"] for rule in group["rules"] if "alert" in rule}:
            own = [rule for rule in group["rules"] if rule.get("alert") == alert]
            for old, new, mutant in changed(own):
                rules = [*records, *yaml.safe_load(mutant)]
                mutated = {"groups": [{"name": "mutant", "rules": rules}]}
                (tmp_path / "alerts.yml").write_text(yaml.safe_dump(mutated))
                count += 1
                if all(passes(test, alert, rules) for test in content["tests"]):
                    passed.append((alert, old, new))
    assert [] == passed
    assert 40 < count


def test_every_alert_says_what_to_do(project, rules):
    """Each has a page that is there, and that the list of pages names it with."""
    index = (project / "docs/runbooks/index.md").read_text()
    base = "https://github.com/your-org/penguins/blob/main/"
    for rule in rules:
        if "alert" in rule:
            page = rule["annotations"]["runbook_url"]
            assert page.startswith(base)
            assert (project / page.removeprefix(base)).is_file()
            (line,) = (each for each in index.splitlines() if f"`{rule['alert']}`" in each)
            assert f"({Path(page).name})" in line
            assert f"`{rule['alert']}`" in (project / page.removeprefix(base)).read_text()


def test_alertmanager_tells_the_right_ones(project):
    """What retraining can mend goes to the relay and to people, all else to people."""
    amtool, folder = program("amtool"), project / "monitoring"
    code, said = run(amtool, "check-config", "alertmanager.yml", folder=folder)
    assert (0, True) == (code, "SUCCESS" in said)
    routes = (amtool, "config", "routes", "test", "--config.file=alertmanager.yml")
    for labels, receivers in (
        (("alertname=ModelDrift", "action=retrain", "severity=warning"), "retraining,people"),
        (("alertname=ModelDegraded", "action=retrain"), "retraining,people"),
        (("alertname=ServiceDown", "severity=critical"), "people"),
    ):
        words = (*routes, f"--verify.receivers={receivers}", *labels)
        code, said = run(*words, folder=folder)
        assert (0, receivers) == (code, said.splitlines()[-1])


def test_compose_watches_the_service(project):
    """Behind a profile there is all of it, only on this machine, and without rights."""
    words = ("docker-compose", "--profile", "monitoring", "config", "--format=json")
    code, said = run(Path(sys.executable).parent / words[0], *words[1:], folder=project)
    assert 0 == code, said
    services = json.loads(said)["services"]
    assert {"api", "monitor", "prometheus", "alertmanager", "relay", "grafana"} == set(services)
    for name, service in services.items():
        assert ["ALL"] == service["cap_drop"]
        assert ["no-new-privileges:true"] == service["security_opt"]
        assert name == "alertmanager" or service["read_only"]
        assert {"127.0.0.1"} >= {port["host_ip"] for port in service.get("ports", ())}
        assert re.search(r":(v?\d+\.\d+\.\d+|local)$", service["image"])
    events = [("volume", "events", "/app/events")]
    reports = [("volume", "reports", "/app/reports")]
    for name, expected in (("api", events), ("relay", events), ("monitor", [*events, *reports])):
        found = services[name]["volumes"]
        assert expected == [(each["type"], each["source"], each["target"]) for each in found]
    assert "monitor" == services["monitor"]["build"]["target"]
    assert "penguins" == services["relay"]["command"][2]
    assert "your-org/penguins" == services["relay"]["environment"]["GITHUB_REPOSITORY"]


@pytest.fixture(scope="module")
def place(default_project, tmp_path_factory):
    """The service, asked once, whose monitor found nothing yet."""
    with watched(default_project, tmp_path_factory.mktemp("place")) as place:
        yield place


def names(expression):
    """Name the metrics and recorded series of an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|without) \([^)]*\)", "", expression)
    words = re.findall(r"[a-zA-Z_][\w:]*(?!\w*\s*\()", bare)
    return {word for word in words if "_" in word and not re.search(rf"{word}\s*\(", bare)}


def expressions(project):
    """List the queries of all dashboards."""
    boards = sorted(project.glob("monitoring/grafana/dashboards/*.json"))
    assert 2 == len(boards)
    for board in boards:
        for panel in json.loads(board.read_text())["panels"]:
            yield from (target["expr"] for target in panel["targets"])


def test_every_metric_that_is_asked_for_exists(project, rules, place):
    """Dashboards and alerts ask for what a running service tells, or a rule records."""
    metrics = f"{place.address}/metrics"
    until(lambda: "model_monitor_store_up 1.0" in wait_until_answered(metrics))
    told = {sample["name"] for sample in SAMPLE.finditer(wait_until_answered(metrics))}
    recorded = {rule["record"] for rule in rules if "record" in rule}
    asked = {
        name
        for expression in [*expressions(project), *(rule["expr"] for rule in rules)]
        for name in names(expression)
    }
    assert 30 < len(asked)
    assert set() == asked - told - recorded
    # What is wanted of it by name.
    assert {
        "model_predictions_total",
        "model_prediction_errors_total",
        "model_predict_duration_seconds_bucket",
        "model_drift_score",
        "model_drift_consecutive_alarms",
        "model_loss_excess_lower_bound",
        "model_loss_labelled_events",
        "model_monitor_last_success_timestamp_seconds",
    } <= told & asked


def test_every_query_of_a_dashboard_can_be_read(project, tmp_path):
    """Prometheus understands each; Grafana finds its source by the name that they have."""
    queries = [each.replace("$__rate_interval", "5m") for each in expressions(project)]
    assert 30 < len(queries)
    rules = [{"record": f"job:query_{i}", "expr": query} for i, query in enumerate(queries)]
    content = {"groups": [{"name": "dashboards", "rules": rules}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(content))
    code, said = run(program("promtool"), "check", "rules", "rules.yml", folder=tmp_path)
    assert 0 == code, said
    sources = yaml.safe_load(
        (project / "monitoring/grafana/datasources/prometheus.yml").read_text()
    )["datasources"]
    used = {
        panel["datasource"]["uid"]
        for board in project.glob("monitoring/grafana/dashboards/*.json")
        for panel in json.loads(board.read_text())["panels"]
    }
    assert used == {source["uid"] for source in sources}


@pytest.fixture
def github():
    """The stand-in of GitHub's API, running."""
    with answering() as server:
        yield server


def test_an_alert_starts_retraining_once(place, project, github, tmp_path):
    """Drift in the store is one dispatch, by two relays, though GitHub fails at first."""
    program("alertmanager", "prometheus-alertmanager")
    program("prometheus")
    with chain(place, project, tmp_path, github) as (prometheus, alertmanager):
        alert, (_, _, path, body) = raised(place, prometheus, alertmanager, github)
        # Both relays have answered by now, the one that failed after another attempt.
        assert [500, 204] == [status for _, status, *_ in github.asked]
    assert "ModelDrift" == alert["labels"]["alertname"]
    assert ("/repos/your-org/penguins/dispatches", "retrain") == (path, body["event_type"])
    payload = body["client_payload"]
    assert "drift of version 0123456789ab: body_mass_g higher by 0.31" == payload["why"]
    assert ("drift", "Penguins") == (payload["reason"], payload["model"])
    assert 1 == len(payload["windows"])
