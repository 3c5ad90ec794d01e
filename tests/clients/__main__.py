"""`make clients`: generate a client in Python and one in TypeScript from the served description, and do the main job
with each."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.factories import pdf
from tests.support.server import Server

HERE = Path(__file__).parent
INSTALLED = Path(sys.prefix) / "clients"  # a virtual environment with the generator, made by the Makefile
TYPESCRIPT = INSTALLED / "typescript"
DESCRIPTION = "openapi.json"


def run(command: Sequence[str | Path], folder: Path) -> None:
    path = f"{INSTALLED / 'bin'}{os.pathsep}{os.environ['PATH']}"  # the generator calls ruff
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, check=True)


def python(server: Server, folder: Path) -> None:
    generator = INSTALLED / "bin/openapi-python-client"
    config = folder / "generator.yaml"  # lines of JSON are text to it
    config.write_text("content_type_overrides: {application/x-ndjson: text/plain}\n")
    described = ["--path", str(folder / DESCRIPTION), "--output-path", "document_api", "--config", str(config)]
    run([generator, "generate", *described, "--meta", "none", "--fail-on-warning"], folder)
    run([INSTALLED / "bin/python", HERE / "python_job.py", server.url, "report.pdf"], folder)


def typescript(server: Server, folder: Path) -> None:
    lock = TYPESCRIPT / "package-lock.json"
    if not lock.exists() or lock.read_bytes() != (HERE / "typescript/package-lock.json").read_bytes():
        shutil.rmtree(TYPESCRIPT, ignore_errors=True)
        shutil.copytree(HERE / "typescript", TYPESCRIPT)
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], TYPESCRIPT)
    shutil.copytree(HERE / "typescript", TYPESCRIPT, dirs_exist_ok=True)
    tools = TYPESCRIPT / "node_modules/.bin"
    run([tools / "openapi-typescript", folder / DESCRIPTION, "--output", "api.ts"], TYPESCRIPT)
    run([tools / "tsc"], TYPESCRIPT)
    run(["node", "job.js", server.url, folder / "report.pdf"], TYPESCRIPT)


def main() -> None:
    jobs = {"Python": python, "TypeScript": typescript}
    if not shutil.which("npm"):
        del jobs["TypeScript"]
        sys.stdout.write("NOT RUN: the client in TypeScript. There is no npm; Node.js 20 or newer brings it\n")
    with TemporaryDirectory() as name, Server(Path(name) / "var") as server, ThreadPoolExecutor() as threads:
        folder = Path(name)
        (folder / "report.pdf").write_bytes(pdf("Hello"))
        (folder / DESCRIPTION).write_bytes(server.client().get("/openapi.json").content)
        for language, done in {each: threads.submit(job, server, folder) for each, job in jobs.items()}.items():
            done.result()
            sys.stdout.write(f"The whole job is done with the generated client in {language}.\n")


if __name__ == "__main__":
    main()
