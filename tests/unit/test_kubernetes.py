"""deploy/kubernetes: the manifests fit the service that they run."""

import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from sqlalchemy import Connection, text, update

from app.database import now
from app.jobs.models import jobs
from app.server import health
from app.server.lifespan import EXIT_SECONDS
from app.settings import Settings
from tests.support import databases, elsewhere
from tests.support.server import Server, Worker
from tests.support.waiting import until

BASH = shutil.which("bash") or "bash"
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
README = (FOLDER / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OTHERS = {"AWS_SHARED_CREDENTIALS_FILE", "PYTHON_CPU_COUNT", "FORWARDED_ALLOW_IPS"}  # of the SDK, Python and uvicorn
MARGIN = 5  # seconds
CHILD = 512  # MiB
LOGS = 5 * 10  # MiB: as many as a node keeps of a container by default
UNITS = {"Mi": 1, "Gi": 1024}
DEPLOYMENTS = ("document-api", "document-api-worker")

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
each_pod = pytest.mark.parametrize("name", DEPLOYMENTS)


@cache
def built() -> dict[tuple[str, str], dict[str, Any]]:
    """What the example makes of all of it, by kind and name."""
    command = ["kubectl", "kustomize", str(FOLDER / "example")]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(made)}


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = built()["Deployment", name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


def config_map() -> dict[str, str]:
    (found,) = [each["data"] for (kind, _), each in built().items() if kind == "ConfigMap"]
    return dict(found)


def environment(name: str) -> dict[str, str]:
    return config_map() | {each["name"]: each["value"] for each in container(name)["env"]}


def setting(name: str, of: str) -> float:
    return float(environment(of).get(name, Settings.model_fields[name.lower()].default))


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


@cache
def secrets() -> dict[str, dict[str, str]]:
    """Those that the commands of the README make, by name."""
    found = re.findall(r"^\(umask.*?^kubectl create secret .*?\n", README, re.DOTALL | re.MULTILINE)
    commands = "".join(found).replace(".env\n", ".env --dry-run=client --output yaml\necho ---\n")
    with TemporaryDirectory() as folder:
        made = subprocess.run([BASH, "-euc", commands], cwd=folder, check=True, capture_output=True, text=True).stdout
        assert {each.stat().st_mode & 0o777 for each in Path(folder).iterdir()} == {0o600}
    resources = [each for each in yaml.safe_load_all(made) if each]
    return {each["metadata"]["name"]: {k: b64decode(v).decode() for k, v in each["data"].items()} for each in resources}


def settings_of(name: str, tmp_path: Path) -> Settings:
    """Those of a pod, whose Secret is as the README makes it."""
    secret = secrets()["document-api"]
    for key, value in secret.items():
        (tmp_path / key).write_text(value)
    own = {each: value for each, value in environment(name).items() if each not in OTHERS}
    assert {each.lower() for each in own} | secret.keys() <= Settings.model_fields.keys()
    return Settings(**{each.lower(): value for each, value in own.items()} | {"secrets_dir": tmp_path}, _env_file=None)


@needs_kubectl
@each_pod
def test_settings_are_those_of_the_service(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("ENVIRONMENT", "production")
    found = settings_of(name, tmp_path)
    assert not isinstance(found.database, Path), "rows would go with the pod"
    assert not isinstance(found.storage, Path), "files would go with the pod"
    mounted = {each["mountPath"]: each for each in container(name)["volumeMounts"]}
    assert config_map()["SECRETS_DIR"] in mounted
    data = re.search(r"DATA_DIR=(\S+)", DOCKERFILE)
    assert data
    assert data[1] in mounted


@needs_kubectl
@each_pod
def test_probes_ask_for_what_is_served(name: str) -> None:
    probed = container(name)
    port = re.search(r"\bPORT=(\d+)", DOCKERFILE)
    assert port
    assert {each["name"]: each["containerPort"] for each in probed["ports"]} == {"http": int(port[1])}
    asked = {kind: probed[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {each["path"] for each in asked.values()} <= {route.path for route in health.router.routes}
    assert [asked[kind]["path"] for kind in asked] == ["/livez", "/livez", "/readyz"]
    assert {each["port"] for each in asked.values()} == {"http"}
    if name == "document-api-worker":
        assert probed["args"][-2:] == ["--health-port", port[1]]


@needs_kubectl
@each_pod
def test_pods_may_do_nothing_that_the_service_does_not_need(name: str) -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[0]
    told = pod(name)
    security = told["securityContext"]
    assert security["runAsNonRoot"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (*map(int, user), int(user[1]))
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert told["automountServiceAccountToken"] is False
    for each in (*told["containers"], *told["initContainers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "command" not in each, "it would take the place of the image's entrypoint"


@needs_kubectl
@each_pod
def test_there_is_time_to_stop(name: str) -> None:
    longest = max(setting("DRAIN_SECONDS", name), setting("SHUTDOWN_DELAY_SECONDS", name))
    assert pod(name)["terminationGracePeriodSeconds"] >= longest + EXIT_SECONDS + MARGIN
    probe = container("document-api")["readinessProbe"]
    assert setting("SHUTDOWN_DELAY_SECONDS", "document-api") >= probe["periodSeconds"] * probe["failureThreshold"] + 2


@needs_kubectl
@each_pod
def test_there_is_room(name: str) -> None:
    cores, jobs_at_once = int(config_map()["PYTHON_CPU_COUNT"]), int(setting("JOB_CONCURRENCY", name))
    uploads = int(setting("UPLOAD_SLOTS", name)) if name == "document-api" else 0
    copies = (jobs_at_once + uploads + cores) * int(setting("MAX_UPLOAD_BYTES", name)) / 1024**2
    (data,) = [each["emptyDir"] for each in pod(name)["volumes"] if each["name"] == "data"]
    assert mebibytes(data["sizeLimit"]) >= copies
    resources = container(name)["resources"]
    assert mebibytes(resources["requests"]["ephemeral-storage"]) >= mebibytes(data["sizeLimit"])
    assert mebibytes(resources["limits"]["ephemeral-storage"]) >= mebibytes(data["sizeLimit"]) + LOGS
    children = (jobs_at_once or cores) * CHILD + 20 * uploads
    assert mebibytes(resources["limits"]["memory"]) >= children + 2 * 46 + 110


@needs_kubectl
def test_every_selector_finds_the_pods_that_it_is_for() -> None:
    labels = {name: built()["Deployment", name]["spec"]["template"]["metadata"]["labels"] for name in DEPLOYMENTS}
    found = {
        (kind, name): [each for each in DEPLOYMENTS if _selector(resource).items() <= labels[each].items()]
        for (kind, name), resource in built().items()
        if kind in {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "Service"}
    }
    server, workers = ([name] for name in DEPLOYMENTS)
    assert found == {
        ("Deployment", "document-api"): server,
        ("Deployment", "document-api-worker"): workers,
        ("NetworkPolicy", "document-api"): list(DEPLOYMENTS),
        ("NetworkPolicy", "document-api-clients"): server,
        ("NetworkPolicy", "document-api-metrics"): list(DEPLOYMENTS),
        ("PodDisruptionBudget", "document-api"): server,
        ("PodDisruptionBudget", "document-api-worker"): workers,
        ("PodMonitor", "document-api"): list(DEPLOYMENTS),
        ("Service", "document-api"): server,
    }
    assert labels["document-api"][built()["PodMonitor", "document-api"]["spec"]["jobLabel"]] == "document-api"


def _selector(resource: dict[str, Any]) -> dict[str, str]:
    told = resource["spec"].get("podSelector") or resource["spec"]["selector"]
    return dict(told.get("matchLabels", told))


def test_the_alerts_are_those_of_prometheus() -> None:
    made = yaml.safe_load((FOLDER / "monitoring/rules.yaml").read_text())
    rules = yaml.safe_load((ROOT / "deploy/monitoring/rules.yml").read_text())
    assert made["spec"] == rules, "make deploy/kubernetes/monitoring/rules.yaml"


@needs_kubectl
def test_a_worker_is_wanted_for_as_many_jobs_as_it_runs_at_once() -> None:
    assert float(trigger()["targetQueryValue"]) == setting("JOB_CONCURRENCY", "document-api-worker")
    assert "replicas" not in built()["Deployment", "document-api-worker"]["spec"], "each apply would set them anew"


@needs_kubectl
def test_few_jobs_start_anew_when_there_are_fewer() -> None:
    down = scaled_object()["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= setting("JOB_TIMEOUT", "document-api-worker")
    assert [each["type"] for each in down["policies"]] == ["Pods"]


@needs_kubectl
def test_what_one_resource_names_is_there() -> None:
    target, [asked] = scaled_object()["scaleTargetRef"]["name"], scaled_object()["triggers"]
    assert "worker" in container(target)["args"]
    [password] = built()["TriggerAuthentication", asked["authenticationRef"]["name"]]["spec"]["secretTargetRef"]
    [scraped] = built()["PodMonitor", "document-api"]["spec"]["podMetricsEndpoints"]
    for reference in (password, scraped["authorization"]["credentials"]):
        assert reference["key"] in secrets()[reference["name"]]
    for name in DEPLOYMENTS:
        assert scraped["port"] in {each["name"] for each in container(name)["ports"]}
        assert built()["ServiceAccount", pod(name)["serviceAccountName"]]
        [volume] = [each["projected"] for each in pod(name)["volumes"] if "projected" in each]
        assert {each["secret"]["name"] for each in volume["sources"]} <= secrets().keys()
    assert scraped["path"] in {route.path for route in health.router.routes}


def scaled_object() -> dict[str, Any]:
    spec: dict[str, Any] = built()["ScaledObject", "document-api-worker"]["spec"]
    return spec


def trigger() -> dict[str, str]:
    told = next(yaml.safe_load_all((FOLDER / "keda/scaler.yaml").read_text()))
    return dict(told["spec"]["triggers"][0]["metadata"])


@contextmanager
def scaler(conn: Connection) -> Iterator[None]:
    """Act as the role of the README, which is gone afterwards."""
    role = f"{conn.engine.url.database}_scaler"
    (made,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    conn.execute(text(re.sub(r"\bscaler\b", role, made)))
    conn.execute(text(f"SET ROLE {role}"))
    yield
    conn.rollback()


@pytest.mark.postgresql
def test_the_scaler_counts_the_jobs_of_these_workers(tmp_path: Path) -> None:
    """Those that are due or being run; not those of workers elsewhere, nor what is put off or paused."""
    query = trigger()["query"].replace("/()@", "/(count|cut)@")
    assert query != trigger()["query"]
    shared = {"REMOTE_PROCESSORS": str(elsewhere.described(tmp_path))}
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path / "var", shared | {"JOB_CONCURRENCY": "0"}))
        conn = stack.enter_context(databases.engine(tmp_path / "var").connect())
        user, operator = server.register(), server.operator()

        def count() -> Any:
            with scaler(conn):
                return conn.scalar(text(query))

        assert count() == 0
        for _ in range(2):
            user.start(user.upload()["id"], processor="count")
        made = operator.http.post("/api-keys", json={"name": "a worker", "scopes": ["worker"]}).json()
        claimed = server.client().post(
            "/remote/count/claim", json={"worker": "w"}, headers={"Authorization": f"Bearer {made['key']}"}
        )
        assert claimed.status_code == 200
        assert count() == 0, "one WAITING, one QUEUED"

        started = [user.start(user.upload()["id"], params={"seconds": 60})["id"] for _ in range(3)]
        assert count() == 3
        stack.enter_context(Worker(tmp_path / "var", shared | {"JOB_CONCURRENCY": "1"}))
        until(lambda: sum(user.job(each)["state"] == "RUNNING" for each in started) == 1)
        assert count() == 3
        queued = next(each for each in started if user.job(each)["state"] == "QUEUED")
        with databases.engine(tmp_path / "var").begin() as other:
            other.execute(update(jobs).where(jobs.c.id == queued).values(run_at=now(3600)))
        assert count() == 2
        operator.http.post("/admin/processors/simulated/pause")
        assert count() == 1, "the one that is being run"

        conn.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(conn.scalars(text(f"EXPLAIN {query}")))
        assert "Seq Scan on jobs" not in plan, plan
