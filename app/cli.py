"""The command line: python -m app serve | worker | migrate | …; `python -m app --help` lists all commands."""

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
import uvicorn
from fastapi import FastAPI

from app import VERSION, demo as demo_module, events, wiring
from app.backup import BackupError
from app.client.commands import client
from app.commands.audit import audit
from app.commands.backup import backup, restore
from app.commands.check import check
from app.commands.documents import documents
from app.commands.jobs import jobs
from app.commands.processors import processors
from app.commands.remote import remote
from app.commands.services import with_services
from app.commands.status import status
from app.commands.transfer import transfer
from app.commands.users import users
from app.commands.worker import Key, KeyFile, Processors, Remote, elsewhere, require_none, work
from app.demo import DemoError
from app.encryption import Rotated, rotate
from app.errors import AppError, ConfigurationError
from app.events.catalogue.service import SecretsRotated
from app.server import logs as server_logs, worker as worker_module
from app.server.lifespan import EXIT_SECONDS
from app.server.protocol import BoundedHttp
from app.server.signals import exiting_at_once
from app.settings import Settings, load, misspelt
from app.telemetry import context, metrics
from app.transfer import TransferError
from app.upkeep import Skipped
from app.wiring.encryption import ENCRYPTED
from app.wiring.services import Services

log = structlog.get_logger()

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for name, commands in (
    ("users", users),
    ("documents", documents),
    ("jobs", jobs),
    ("processors", processors),
    ("audit", audit),
    ("client", client),
    ("remote", remote),
):
    cli.add_typer(commands, name=name)
for command in (status, check, backup, restore, transfer):
    cli.command()(command)

_PORT_TIMEOUT = 1.0  # seconds that a port may be taken at the start
_STARTUP_TIMEOUT = 15  # seconds for a server process to start, and then to answer each check of its supervisor

_Host = Annotated[str | None, typer.Option(help="Address to listen on; default: HOST.")]
_Port = Annotated[int | None, typer.Option(help="Port to listen on; default: PORT.")]
_Workers = Annotated[int | None, typer.Option(help="Server processes; default: WORKERS.")]
_DataDir = Annotated[Path | None, typer.Option(help="Database and files; default: DATA_DIR.")]
_LogLevel = Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR; default: LOG_LEVEL.")]
_Concurrency = Annotated[int | None, typer.Option(min=1, help="Number of jobs at once; default: JOB_CONCURRENCY.")]
_DemoUrl = Annotated[
    str | None, typer.Option(help="URL of a running server, which keeps an account and two documents of it.")
]
_HealthPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Serve /livez, /readyz and /metrics on this port; default: not at all."),
]


@cli.callback(invoke_without_command=True)
def options(*, version: Annotated[bool, typer.Option("--version", help="Show the version, and exit.")] = False) -> None:
    """Document Lifecycle API."""
    if version:
        typer.echo(VERSION)
        raise typer.Exit


def main() -> None:
    """Run a command. An expected failure is one line on stderr and a non-zero exit code."""
    try:
        cli()
    except ConfigurationError as error:
        sys.exit(f"configuration: {error}")
    except TransferError as error:
        sys.exit(f"transfer: {error}")
    except BackupError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except Skipped as error:
        sys.exit(f"skipped: {error}")
    except AppError as error:
        sys.exit(f"{error.code}: {error.detail}")


@cli.command()
def serve(
    *,
    host: _Host = None,
    port: _Port = None,
    workers: _Workers = None,
    data_dir: _DataDir = None,
    log_level: _LogLevel = None,
) -> None:
    """Migrate the database, then serve."""
    _choose(host=host, port=port, workers=workers, data_dir=data_dir, log_level=log_level)
    settings = load()
    server_logs.configure(settings)
    _require_free_port(settings)
    asyncio.run(wiring.preflight(settings))
    _warn_of_misspelt_settings(settings)
    log.info("server.starting", docs=f"{settings.public_url or _address(settings)}/docs")
    if settings.workers > 1:
        metrics.share_between_workers(settings.data_dir)
    else:
        application()
    _exit_cleanly()
    uvicorn.run(
        "app.cli:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        timeout_worker_healthcheck=_STARTUP_TIMEOUT,
        **_uvicorn(settings),
    )


def application() -> FastAPI:
    """What each server process serves. While it is imported, a signal ends the process at once."""
    with exiting_at_once():
        app: FastAPI = import_module("app.main").app
        return app


@cli.command()
def worker(
    *,
    concurrency: _Concurrency = None,
    health_port: _HealthPort = None,
    data_dir: _DataDir = None,
    log_level: _LogLevel = None,
    remote: Remote = None,
    key: Key = "",
    key_file: KeyFile = None,
    processor: Processors = None,
) -> None:
    """Run the jobs of the servers with the same DATABASE_URL. Any number of workers can run, on any host.

    With --remote it needs no DATABASE_URL, but a key with the scope `worker`: it claims the jobs of processors that
    the service has run elsewhere (REMOTE_PROCESSORS) over HTTP, and runs them with the processors that are installed
    here.
    """
    _choose(job_concurrency=concurrency, data_dir=data_dir, log_level=log_level)
    running = None
    if remote is None:
        require_none("a worker without --remote", {"--key-file": key_file, "--processor": processor})
        settings = load()
        app = worker_module.create_app(settings)
        asyncio.run(wiring.preflight(settings))
    else:
        require_none("--remote", {"--data-dir": data_dir})
        running = elsewhere(remote, key_file.read_text().strip() if key_file else key, processor or ())
        settings = running.settings
        app = worker_module.with_health(settings, lambda: running)
    server = uvicorn.Server(uvicorn.Config(app, settings.host, health_port or 0, **_uvicorn(settings)))
    _exit_cleanly()
    work(server, running, serving=health_port is not None)


@cli.command()
def migrate() -> None:
    """Bring the database schema to the newest revision."""
    with_services(lambda services: services.db.check())
    typer.echo("The database is up to date.")


@cli.command()
def sweep(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Remove files without a document, however many they are.")] = False,
) -> None:
    """Do once what every server does now and then: requeue lost jobs, forget what expired, remove orphaned files."""

    async def work(services: Services) -> None:
        context.actor.set(context.worker())  # what every server does by itself
        await services.rescuer.rescue()
        if yes:
            typer.echo(f"{await services.orphans.count()}: they are removed now")
            await services.orphans.remove_all()
        await services.upkeep.once()
        typer.echo("Everything is swept.")

    with_services(work, claiming=True)


@cli.command()
def adopt() -> None:
    """Declare that the files of this environment's storage belong to its database, after a restore for instance."""
    adopted = with_services(lambda services: services.claim.adopt())
    typer.echo(
        f"The files belong to this database now. Of the first {adopted.files} of them, "
        f"{adopted.with_document} have a document in it."
    )


@cli.command()
def rotate_secrets() -> None:
    """Encrypt again what older keys of ENCRYPTION_KEYS have encrypted: these can then be removed. May be repeated."""

    async def work(services: Services) -> Rotated:
        done = await rotate(services.db, services.encryption, ENCRYPTED)
        await services.db.write(partial(events.append, event=SecretsRotated(**done._asdict())))
        return done

    done = with_services(work)
    if done.unreadable:
        sys.exit(
            f"Secrets encrypted anew: {done.changed}. Not those that were encrypted with a key that is not in "
            f"ENCRYPTION_KEYS: {done.unreadable}"
        )
    typer.echo(f"All secrets are encrypted with the newest key. Of them, {done.changed} were not before.")


@cli.command()
def demo(
    url: Annotated[
        str | None, typer.Option(help="URL of a running server, which keeps an account and two documents.")
    ] = None,
) -> None:
    """Show the main use case end to end, on a temporary server unless a URL is given."""
    demo_module.run(url)


def _choose(**options: object) -> None:
    """Put options before the environment, for this process and for those that it starts."""
    os.environ.update({name.upper(): str(value) for name, value in options.items() if value is not None})


def _warn_of_misspelt_settings(settings: Settings) -> None:
    for source, name, meant in misspelt(settings.secrets_manager_id):
        log.warning("settings.unknown", name=name, source=source, perhaps=meant)


def _require_free_port(settings: Settings) -> None:
    """Raise ConfigurationError if nobody can listen there, before anything else is done.

    A server that was killed may hold the port for a moment longer.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    deadline = time.monotonic() + _PORT_TIMEOUT
    while True:
        try:
            socket.create_server((settings.host, settings.port), family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            reason = (error.strerror or "").partition(" (")[0]
            raise ConfigurationError(f"HOST, PORT: {settings.host}:{settings.port}: {reason}") from None
        return


def _address(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _uvicorn(settings: Settings) -> dict[str, Any]:
    """The options of uvicorn that servers and workers share."""
    return {
        "http": BoundedHttp,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": settings.keep_alive_seconds,
        "timeout_graceful_shutdown": round(EXIT_SECONDS / 2),  # for open requests; the rest is for closing
    }


def _exit_cleanly() -> None:
    """Exit with code 0 on SIGTERM and SIGINT: uvicorn raises the signal again after its graceful stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
