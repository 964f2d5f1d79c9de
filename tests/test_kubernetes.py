"""The Kubernetes target: objects as kubectl renders them, and what deploy.sh decides.

kubectl is the real one; the cluster that it asks is tests/cluster.py.
"""

import base64
import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import engine
import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster import Cluster, kubectl
from conftest import TEMPLATE, generate
from live import wait
from runner import TOOLS, repository

ENVIRONMENTS = ["staging", "production"]
HOST = "penguins.test"
FIRST, SECOND = ("registry.example/o/penguins@sha256:" + digit * 64 for digit in "ab")
SECRETS = {
    "APP_SETTINGS": "APP_EVENTS__STORE=postgresql://u:st0re-word@db.example/x\nAPP_SERVING__ADMIN_TOKEN=adm1n-word",
    "REGISTRY_PASSWORD": "pull-w0rd",
    "SMOKE_KEY": "sm0ke-word",
}
HIDDEN = ["st0re-word", "adm1n-word", "pull-w0rd", "sm0ke-word", "account-token"]
# The essentials of monitoring.coreos.com/v1, of which kubernetes-validate has no schema.
SERVICE_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["endpoints", "selector"],
            "additionalProperties": False,
            "properties": {
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"matchLabels": {"type": "object"}},
                },
                "endpoints": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "interval": {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"},
                        },
                    },
                },
            },
        },
    },
}


def rendered(folder):
    """Render a folder as kubectl does."""
    text = subprocess.check_output([kubectl(), "kustomize", folder], text=True)
    return list(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project for Kubernetes, with the host of its user."""
    project = generate(tmp_path_factory.mktemp("kubernetes"), deploy="kubernetes")
    for path in project.glob("deploy/overlays/*/kustomization.yaml"):
        path.write_text(path.read_text().replace("penguins.example", HOST))
    return project


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def overlay(request, project):
    """An environment's name and its objects by kind."""
    found = rendered(project / "deploy/overlays" / request.param)
    objects = {each["kind"]: each for each in found}
    assert len(found) == len(objects)
    return request.param, objects


@pytest.fixture(scope="module")
def access(project):
    """What prepare.sh makes, by kind."""
    return {each["kind"]: each for each in rendered(project / "deploy/access")}


def test_objects_are_valid(overlay, access):
    """Strictly, by the newest schemas: each field exists and has its type."""
    _, objects = overlay
    jsonschema.validate(objects["ServiceMonitor"], SERVICE_MONITOR)
    others = [each for kind, each in objects.items() if kind != "ServiceMonitor"]
    for each in [*others, *access.values()]:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_an_overlay_has_every_object(overlay):
    """One of each kind, in the environment's namespace, under the project's name and labels."""
    environment, objects = overlay
    kinds = "Deployment HorizontalPodAutoscaler Ingress NetworkPolicy PodDisruptionBudget Service"
    assert {*kinds.split(), "ServiceMonitor"} == set(objects)
    labels = {
        "app.kubernetes.io/name": "penguins",
        "app.kubernetes.io/instance": f"penguins-{environment}",
        "app.kubernetes.io/component": "api",
        "app.kubernetes.io/part-of": "penguins",
        "app.kubernetes.io/managed-by": "kustomize",
    }
    pods = objects["Deployment"]["spec"]["template"]
    assert labels == pods["metadata"]["labels"]
    for each in objects.values():
        meta = each["metadata"]
        assert ("penguins", f"penguins-{environment}") == (meta["name"], meta["namespace"])
        assert labels == meta["labels"]


def test_selectors_find_the_pods(overlay):
    """Everything that selects pods or the service finds them, and knows their port."""
    _, objects = overlay
    name = {"app.kubernetes.io/name": "penguins"}
    pods = objects["Deployment"]["spec"]["template"]["spec"]
    assert name == objects["Service"]["spec"]["selector"]
    for kind in ("Deployment", "PodDisruptionBudget", "ServiceMonitor"):
        assert {"matchLabels": name} == objects[kind]["spec"]["selector"]
    assert {"matchLabels": name} == objects["NetworkPolicy"]["spec"]["podSelector"]
    assert [{"matchLabels": name}] * 2 == [
        rule["labelSelector"] for rule in pods["topologySpreadConstraints"]
    ]
    assert [{"name": "http", "containerPort": 8000}] == pods["containers"][0]["ports"]
    (port,) = objects["Service"]["spec"]["ports"]
    assert ("http", "http") == (port["name"], port["targetPort"])
    assert "http" == objects["ServiceMonitor"]["spec"]["endpoints"][0]["port"]
    (path,) = objects["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert {"name": "penguins", "port": {"name": "http"}} == path["backend"]["service"]
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert {"apiVersion": "apps/v1", "kind": "Deployment", "name": "penguins"} == target


def test_a_pod_has_no_rights(overlay, access):
    """A pod keeps the standard `restricted`, writes to two folders and cannot ask the cluster."""
    _, objects = overlay
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    } == pod["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == container["securityContext"]
    assert {"cpu": "250m", "memory": "512Mi"} == container["resources"]["requests"]
    assert {"memory": "512Mi"} == container["resources"]["limits"]
    assert {"/app/events", "/tmp"} == {each["mountPath"] for each in container["volumeMounts"]}
    assert [{"emptyDir", "name"}] * 2 == [set(volume) for volume in pod["volumes"]]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    labels = access["Namespace"]["metadata"]["labels"]
    standard = {mode: labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn")}
    assert {"enforce": "restricted", "warn": "restricted"} == standard


def test_only_the_proxy_and_prometheus_reach_a_pod(overlay):
    """The network is closed but for requests, names, the database and HTTPS."""
    _, objects = overlay
    spec = objects["NetworkPolicy"]["spec"]
    assert ["Ingress", "Egress"] == spec["policyTypes"]
    (incoming,) = spec["ingress"]
    (rule,) = incoming["from"][0]["namespaceSelector"]["matchExpressions"]
    assert ["ingress-nginx", "monitoring"] == rule["values"]
    assert [8000] == [port["port"] for port in incoming["ports"]]
    outgoing = [port for rule in spec["egress"] for port in rule["ports"]]
    assert [("UDP", 53), ("TCP", 53), ("TCP", 5432), ("TCP", 443)] == [
        (port["protocol"], port["port"]) for port in outgoing
    ]


def test_a_rollout_takes_no_pod_away(overlay):
    """New pods come first, by the service's own health; old ones end what they have begun."""
    _, objects = overlay
    spec = objects["Deployment"]["spec"]
    assert {"maxUnavailable": 0, "maxSurge": 1} == spec["strategy"]["rollingUpdate"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    probes = [
        container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "readiness", "liveness")
    ]
    assert ["/health/live", "/health/ready", "/health/live"] == probes
    source = TEMPLATE / "src/{{cookiecutter.package}}"
    routes = (source / "serving/routes.py").read_text()
    assert all(f'@router.get("{path}"' in routes for path in probes)
    # Ingestion may have to end one child and start another.
    stop = float(
        re.search(r"^STOP_SECONDS = (.+)$", (source / "ingestion.py").read_text(), re.M)[1]
    )
    settings = re.search(r"shutdown_seconds: (\d+)", (TEMPLATE / "params.yaml").read_text())
    needed = container["lifecycle"]["preStop"]["sleep"]["seconds"] + int(settings[1]) + 2 * stop
    assert needed < pod["terminationGracePeriodSeconds"]


def test_the_autoscaler_alone_counts_pods(overlay):
    """A deployment does not reset how many there are, and a node can be drained."""
    environment, objects = overlay
    assert "replicas" not in objects["Deployment"]["spec"]
    scaler = objects["HorizontalPodAutoscaler"]["spec"]
    expected = {"staging": (1, 2), "production": (3, 10)}[environment]
    assert expected == (scaler["minReplicas"], scaler["maxReplicas"])
    budget = objects["PodDisruptionBudget"]["spec"]
    assert (1, False) == (budget["maxUnavailable"], "minAvailable" in budget)


@pytest.mark.parametrize("package", ["p" * 40, "a__b_", "my_model"])
def test_a_name_is_a_label(tmp_path, package):
    """Whatever the package is called, its names are ones that Kubernetes takes."""
    project = generate(tmp_path, package=package, deploy="kubernetes")
    for path in project.glob("deploy/**/*.yaml"):
        for text in re.findall(r"(?:name|namespace): ([^\s]+)$", path.read_text(), re.M):
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", text), f"{path.name}: {text}"
            assert 63 >= len(text)


def test_the_scripts_pass_shellcheck(project):
    """Shellcheck finds nothing."""
    scripts = sorted(project.glob("deploy/*.sh"))
    assert ["deploy.sh", "prepare.sh"] == [path.name for path in scripts]
    tool = Path(sys.executable).with_name("shellcheck")
    run = subprocess.run([tool, *scripts], stdout=subprocess.PIPE, text=True)
    assert (0, "") == (run.returncode, run.stdout)


class Target:
    """A project, a cluster, and the script between them."""

    def __init__(self, project, folder):
        self.project, self.cluster = project, Cluster(folder)
        self.home = folder
        (folder / "bin").mkdir()
        self.calls = folder / "calls"
        # Every call is written down, then made.
        recording = f'#!/bin/sh\nprintf "%s\\n" "$*" >>{self.calls}\nexec {kubectl()} "$@"\n'
        (folder / "bin/kubectl").write_text(recording)
        (folder / "bin/kubectl").chmod(0o755)

    def run(self, *verbs, script="deploy.sh", meanwhile=None, **changed):
        """Run the script; return its exit code, its last line and all that it said."""
        self.calls.write_text("")
        outputs = self.home / "outputs"
        outputs.write_text("")
        variables = {
            "PATH": f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "CI": "true",
            "ENVIRONMENT": "staging",
            "DEPLOY_ADDRESS": self.cluster.address,
            "DEPLOY_CREDENTIAL": self.cluster.kubeconfig(),
            "REGISTRY_USER": "robot",
            "GITHUB_OUTPUT": str(outputs),
            **SECRETS,
            **changed,
        }
        process = subprocess.Popen(
            [self.project / "deploy" / script, *verbs],
            env={name: value for name, value in variables.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Who ignores Ctrl-C, as what runs in the background does, leaves that to its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        if meanwhile:
            meanwhile(process)
        stdout, stderr = process.communicate()
        self.said, self.calls_made = stdout + stderr, self.calls.read_text()
        self.outputs = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
        for word in HIDDEN:
            assert word not in self.said
            assert word not in self.calls_made
        errors = stderr.strip().splitlines()
        return process.returncode, errors[-1] if errors else "", stdout


@pytest.fixture(scope="module")
def started(project, tmp_path_factory, access):
    """A cluster in whose namespace the first image serves."""
    target = Target(project, tmp_path_factory.mktemp("cluster"))
    target.cluster.rules = access["Role"]["rules"]
    name = {"name": "penguins-staging"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": name}
    target.cluster.objects["namespaces", "penguins-staging"] = namespace
    target.empty = copy.deepcopy(target.cluster.objects)
    from_windows = SECRETS["APP_SETTINGS"].replace("\n", "\r\n")
    target.first = target.run("deploy", IMAGE=FIRST, APP_SETTINGS=from_windows)
    target.first_calls, target.first_outputs = target.calls_made, target.outputs
    target.serving = copy.deepcopy(target.cluster.objects)
    yield target
    target.cluster.close()


@pytest.fixture
def target(started):
    """The same cluster for each test: the first image serves, and nothing ails."""
    started.cluster.objects = copy.deepcopy(started.serving)
    started.cluster.ailing, started.cluster.writes, started.cluster.stdin = {}, [], []
    started.cluster.breaks = None
    return started


def test_deploy(target):
    """The image serves by its digest, with its secrets, after its differences were shown."""
    code, error, said = target.first
    assert (0, "") == (code, error), said
    assert FIRST == target.cluster.image()
    assert {
        "url": "https://staging.penguins.test",
        "previous": "",
        "model": "penguins 1",
    } == target.first_outputs
    objects = target.cluster.objects
    pod = objects["deployments", "penguins"]["spec"]["template"]["spec"]
    name = pod["containers"][0]["envFrom"][0]["secretRef"]["name"]
    stored = objects["secrets", name]["data"]
    assert dict(line.split("=", 1) for line in SECRETS["APP_SETTINGS"].splitlines()) == {
        key: base64.b64decode(value).decode() for key, value in stored.items()
    }
    pull = json.loads(base64.b64decode(objects["secrets", "registry"]["data"][".dockerconfigjson"]))
    auth = pull["auths"]["registry.example"]["auth"]
    assert b"robot:pull-w0rd" == base64.b64decode(auth)
    assert f"+        image: {FIRST}" in said.replace("- image", "  image")
    assert "+  APP_EVENTS__STORE: '***'" in said
    order = [
        shlex.split(line)[2] for line in target.first_calls.splitlines() if "--namespace" in line
    ]
    wanted = ["diff", "apply", "rollout", "exec"]
    assert wanted == sorted(wanted, key=order.index)


def test_deploy_another_and_roll_back(target):
    """The second image takes over from the first, and gives way to it again."""
    assert (0, "") == target.run("deploy", IMAGE=SECOND)[:2]
    assert SECOND == target.cluster.image()
    assert FIRST == target.outputs["previous"]
    assert ["sm0ke-word\n"] == target.cluster.stdin
    assert "-        image: " + FIRST in target.said.replace("- image", "  image")
    assert (0, "") == target.run("rollback")[:2]
    assert FIRST == target.cluster.image()
    assert SECOND == target.outputs["previous"]


@pytest.mark.skipif(not (TOOLS / "act").exists() or not engine.client(), reason="no act or engine")
def test_the_workflow(target, tmp_path):
    """Target.yml, executed by act, deploys with what the environment on GitHub holds."""
    variables = {"DEPLOY_ADDRESS": target.cluster.address, "REGISTRY_USER": "robot"}
    secrets = {**SECRETS, "DEPLOY_CREDENTIAL": target.cluster.kubeconfig()}
    with repository(tmp_path, target.project) as runner:
        runner.place("kubectl", f'#!/bin/sh\nexec {kubectl()} "$@"\n')
        given = {"environment": "staging", "image": SECOND}
        run = runner.act(
            "target.yml", "workflow_call", inputs=given, variables=variables, secrets=secrets
        )
    assert (0, {"target": "success"}) == (run.code, run.jobs), run.text
    assert SECOND == target.cluster.image()
    expected = {"url": "https://staging.penguins.test", "model": "penguins 1", "previous": FIRST}
    assert expected == run.outputs


ILLS = {
    "no-right-to-pull": (
        {
            "waiting": "ImagePullBackOff",
            "events": ["Failed to pull image: 401 Unauthorized", "Error: ErrImagePull"],
        },
        (13, "the cluster cannot pull the image: Failed to pull image: 401 Unauthorized"),
    ),
    "architecture": (
        {"waiting": "CrashLoopBackOff", "log": "exec /opt/venv/bin/python: exec format error\n"},
        (13, "the image is for another architecture than the cluster's nodes: exec format error"),
    ),
    "architecture-by-the-runtime": (
        {"waiting": "RunContainerError", "died": "runc create failed: exec format error"},
        (13, "the image is for another architecture than the cluster's nodes: exec format error"),
    ),
    "crash": (
        {"waiting": "CrashLoopBackOff", "log": "starting\nerror: params.yaml: no such section\n"},
        (14, "the new version ends as soon as it starts: params.yaml: no such section"),
    ),
    "no-settings": (
        {"waiting": "CreateContainerConfigError", "message": 'secret "settings" not found'},
        (10, 'secret "settings" not found: gh secret set APP_SETTINGS --env staging < FILE'),
    ),
    "unready": (
        {"unready": True, "events": ["Readiness probe failed: statuscode: 503"]},
        (14, "the new version is not ready after 0 s: Readiness probe failed: statuscode: 503"),
    ),
    "no-room": (
        {"unschedulable": "0/3 nodes are available: 3 Insufficient memory."},
        (12, "no node takes the pod: 0/3 nodes are available: 3 Insufficient memory."),
    ),
    "quota": (
        {"refused": 'pods "penguins" is forbidden: exceeded quota'},
        (12, 'no pod may be made: pods "penguins" is forbidden: exceeded quota'),
    ),
    "smoke": (
        {"smoke": "http://127.0.0.1:8000 serves version 1, expected 2"},
        (
            14,
            "the new version fails its smoke test: "
            "http://127.0.0.1:8000 serves version 1, expected 2",
        ),
    ),
}


@pytest.mark.parametrize("ill", ILLS)
def test_an_ailing_version_is_undone(target, ill):
    """What served serves again, the reason is said, and no rollback finds the failure."""
    ailing, (code, why) = ILLS[ill]
    target.cluster.ailing[SECOND] = ailing
    found = target.run("deploy", IMAGE=SECOND, DEPLOY_TIMEOUT="0")
    assert (code, f"error: {why}; {FIRST} serves") == found[:2]
    assert FIRST == target.cluster.image()
    assert [FIRST] == list(target.cluster.revisions().values())
    assert {} == target.outputs
    target.cluster.ailing = {}
    assert 12 == target.run("rollback")[0]


def test_settings_that_do_not_reach_the_store_are_undone(target):
    """Other settings are a rollout, of the same image too; events have to be stored."""
    old = copy.deepcopy(target.cluster.objects["deployments", "penguins"]["spec"])
    other = SECRETS["APP_SETTINGS"].replace("st0re-word", "other-word")
    assert 0 == target.run("deploy", IMAGE=FIRST, APP_SETTINGS=other)[0]
    assert 2 == len(target.cluster.revisions())
    target.cluster.objects = copy.deepcopy(target.serving)
    target.cluster.ailing[SECOND] = {"store": "FATAL: password authentication failed"}
    code, error, _ = target.run("deploy", IMAGE=SECOND, APP_SETTINGS=other)
    why = "the new version cannot store events: FATAL: password authentication failed"
    assert (14, f"error: {why}; {FIRST} serves") == (code, error)
    assert old == target.cluster.objects["deployments", "penguins"]["spec"]


def test_events_that_wait_are_not_thrown_away(target):
    """No pod is replaced while its events cannot be stored, unless they are given up."""
    target.cluster.ailing[FIRST] = {"store": "connection refused"}
    code, error, _ = target.run("deploy", IMAGE=SECOND)
    assert 12 == code
    assert "error: events wait in the pods and would end with them, as the store does not" in error
    assert [] == target.cluster.writes
    assert 0 == target.run("deploy", IMAGE=SECOND, LOSE_EVENTS="1")[0]


def test_a_first_deployment_that_fails(target):
    """There is nothing to go back to, and the next push works."""
    target.cluster.objects = copy.deepcopy(target.empty)
    target.cluster.ailing[FIRST] = {"waiting": "CrashLoopBackOff", "log": "error: no bundle"}
    code, error, _ = target.run("deploy", IMAGE=FIRST)
    why = "the new version ends as soon as it starts: no bundle"
    assert (14, f"error: {why}; nothing served before") == (code, error)
    assert (0, "") == target.run("deploy", IMAGE=SECOND)[:2]
    assert "" == target.outputs["previous"]


@pytest.mark.parametrize("plural", ["deployments", "ingresses"])
def test_an_apply_that_breaks_off(target, plural):
    """Wherever the connection is lost, what served serves, and nothing of the new version stays."""
    before = target.cluster.specs()
    target.cluster.breaks = plural
    code, error, _ = target.run("deploy", IMAGE=SECOND)
    assert 11 == code
    assert re.fullmatch(f"error: the cluster broke off: .*; {FIRST} serves", error)
    assert before == target.cluster.specs()
    assert [FIRST] == list(target.cluster.revisions().values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deployment_that_is_cancelled(target, number):
    """A run that GitHub cancels, or that takes too long, is undone."""
    before = target.cluster.specs()
    target.cluster.ailing[SECOND] = {"unready": True}

    def cancel(process):
        wait(lambda: target.cluster.image() == SECOND, "nothing is applied")
        process.send_signal(number)

    found = target.run("deploy", IMAGE=SECOND, meanwhile=cancel)
    assert (11, f"error: it was broken off; {FIRST} serves") == found[:2]
    assert before == target.cluster.specs()
    assert [FIRST] == list(target.cluster.revisions().values())


@pytest.mark.parametrize("verb", ["deploy", "rollback"])
def test_killed(target, verb):
    """What a killed deployment left is not gone back to, as nobody has found it well."""
    left, third = {"smoke": "no model"}, SECOND.replace("b", "c")
    target.cluster.ailing = {SECOND: left, third: left}

    def kill(process):
        wait(lambda: target.cluster.image() == SECOND, "nothing is applied")
        process.kill()

    assert -signal.SIGKILL == target.run("deploy", IMAGE=SECOND, meanwhile=kill)[0]
    assert SECOND == target.cluster.image()
    if verb == "deploy":
        why = "error: the new version fails its smoke test: no model"
        assert (14, f"{why}; {FIRST} serves") == target.run("deploy", IMAGE=third)[:2]
        target.cluster.ailing = {}
        assert (0, "") == target.run("deploy", IMAGE=third)[:2]
        assert FIRST == target.outputs["previous"]
    assert (0, "") == target.run("rollback")[:2]
    assert FIRST == target.cluster.image()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("ingress.yaml", "name: http\n", "name: web\n"),
        ("service.yaml", "targetPort: http", "targetPort: https"),
        ("network-policy.yaml", "ingress-nginx, ", ""),
    ],
    ids=["ingress", "service", "policy"],
)
def test_what_clients_do_not_reach(target, tmp_path, path, old, new):
    """A version is well inside, and nobody gets to it: what stands in front is undone with it."""
    before = target.cluster.specs()
    wrong = Path(shutil.copytree(target.project, tmp_path / "penguins", symlinks=True))
    file = wrong / "deploy/base" / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    kept, target.project = target.project, wrong
    try:
        for image in (SECOND, FIRST):
            code, error, _ = target.run("deploy", IMAGE=image, DEPLOY_TIMEOUT="0")
            assert 14 == code
            assert (
                f"error: {target.cluster.address} does not answer: curl: (22) The requested URL "
                "returned error: 503 (if only this machine cannot reach it: DEPLOY_ADDRESS=none); "
                f"{FIRST} serves"
            ) == error
            assert before == target.cluster.specs()
            assert target.cluster.lets_in()
        assert (0, "") == target.run("deploy", IMAGE=SECOND, DEPLOY_ADDRESS="none")[:2]
    finally:
        target.project = kept


def test_check_changes_nothing(target):
    """What is ready is said so; no object is written."""
    code, error, said = target.run("check")
    assert (0, "") == (code, error)
    assert f"namespace penguins-staging is ready; {FIRST} serves\n" == said
    assert [] == target.cluster.writes


GIVE = "ENVIRONMENT=staging deploy/prepare.sh | gh secret set DEPLOY_CREDENTIAL --env staging"
SET = "gh secret set APP_SETTINGS --env staging < FILE"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"ENVIRONMENT": "live"}, "ENVIRONMENT is 'live', expected one of: production staging"),
        ({"DEPLOY_CREDENTIAL": None}, f"DEPLOY_CREDENTIAL is missing: {GIVE}"),
        ({"DEPLOY_CREDENTIAL": "account-token"}, f"DEPLOY_CREDENTIAL is no kubeconfig: {GIVE}"),
        (
            {"IMAGE": "registry.example/o/penguins:latest"},
            "IMAGE is 'registry.example/o/penguins:latest', expected a name with its digest: "
            "registry/owner/project@sha256:...",
        ),
        (
            {"REGISTRY_USER": ""},
            "REGISTRY_PASSWORD needs REGISTRY_USER: gh variable set REGISTRY_USER --env staging",
        ),
        (
            {"APP_SETTINGS": ""},
            f"APP_SETTINGS is missing, with at least APP_EVENTS__STORE=postgresql://...: {SET}",
        ),
        (
            {"APP_SETTINGS": "# mine\nst0re-word: 5"},
            f"APP_SETTINGS: line 2 is not NAME=value: {SET}",
        ),
        (
            {"APP_SETTINGS": "APP_SERVING__WORKERS=2"},
            "APP_SETTINGS lacks APP_EVENTS__STORE=postgresql://...: events end with their pod "
            "(where none are wanted: APP_EVENTS__MODE=off)",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_is_missing_or_wrong(target, changed, expected):
    """It is named, with the command that sets it, and nothing is changed."""
    found = target.run("deploy", **{"IMAGE": SECOND, **changed})
    assert (10, f"error: {expected}") == found[:2]
    assert [] == target.cluster.writes


def test_the_host_of_an_example(tmp_path, target):
    """An address that cannot be anybody's is refused."""
    target.project, kept = generate(tmp_path, deploy="kubernetes"), target.project
    code, error, _ = target.run("check")
    target.project = kept
    path = "deploy/overlays/staging/kustomization.yaml"
    why = f"{path} has the host staging.penguins.example: write the one that clients will use"
    assert (10, f"error: {why}") == (code, error)


def test_a_cluster_that_cannot_be_reached(target, tmp_path_factory):
    """Nobody there, another certificate, a token that is not known: 11, and why."""
    other = Cluster(tmp_path_factory.mktemp("other"))
    wrong = target.cluster.kubeconfig(certificate=other.certificate)
    nobody = other.kubeconfig()
    other.close()
    for credential, why in (
        (nobody, "did you specify the right host or port?"),
        (wrong, "certificate signed by unknown authority"),
        (target.cluster.kubeconfig(token="old"), "You must be logged in to the server"),
    ):
        code, error, _ = target.run("deploy", IMAGE=SECOND, DEPLOY_CREDENTIAL=credential)
        assert 11 == code
        assert error.startswith("error: the cluster cannot be reached: ")
        assert why in error


def test_a_cluster_that_is_not_prepared(target, access):
    """No namespace, no right, no Prometheus operator: 12, and the way out."""
    prepare = "ENVIRONMENT=staging deploy/prepare.sh"
    cluster = target.cluster
    cluster.rules = [rule for rule in cluster.rules if "pods/exec" not in rule["resources"]]
    why = "this account may not create pods/exec in namespace penguins-staging"
    assert (12, f"error: {why}: {prepare} makes one that may") == target.run("check")[:2]
    cluster.rules = access["Role"]["rules"]
    del cluster.kinds["monitoring.coreos.com/v1"]
    subprocess.run(["rm", "-r", target.home / ".kube"], check=True)  # what kubectl remembers
    code, error, _ = target.run("check")
    cluster.kinds["monitoring.coreos.com/v1"] = {"servicemonitors": "ServiceMonitor"}
    subprocess.run(["rm", "-r", target.home / ".kube"], check=True)
    assert (12, "error: the cluster knows no ServiceMonitor") == (code, error.rpartition(": ")[0])
    del cluster.objects["namespaces", "penguins-staging"]
    why = f"namespace penguins-staging is missing: an administrator makes it with {prepare}"
    assert (12, f"error: {why}") == target.run("deploy", IMAGE=SECOND)[:2]
    assert [] == cluster.writes


def test_prepare(target, access):
    """An administrator's call makes namespace and account, and prints what gets in as it.

    It does not wait for ever where the cluster gives the account no token.
    """
    cluster = target.cluster
    cluster.objects, cluster.rules = {}, None
    admin = target.home / "admin"
    admin.write_text(cluster.kubeconfig())
    path = f"{target.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "HOME": str(target.home), "ENVIRONMENT": "staging"}
    variables |= {"KUBECONFIG": str(admin), "DEPLOY_TIMEOUT": "0"}

    def prepare():
        words = [target.project / "deploy/prepare.sh"]
        return subprocess.run(words, env=variables, capture_output=True, text=True)

    cluster.gives_tokens = False
    refused = prepare()
    cluster.gives_tokens = True
    assert (12, "") == (refused.returncode, refused.stdout)
    assert refused.stderr.splitlines()[-1].startswith("error: the cluster puts no token into")
    done = prepare()
    cluster.rules = cluster.objects["roles", "deployer"]["rules"]
    assert (0, access["Role"]["rules"]) == (done.returncode, cluster.rules)
    labels = cluster.objects["namespaces", "penguins-staging"]["metadata"]["labels"]
    assert "restricted" == labels["pod-security.kubernetes.io/enforce"]
    assert 0 == target.run("check", DEPLOY_CREDENTIAL=done.stdout)[0]
