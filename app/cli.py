"""The command line: python -m app serve | worker | migrate | adopt | transfer | users | sweep | demo."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvicorn
from pydantic import ValidationError

from app import demo as demo_module, wiring
from app.auth.schemas import NewUser, canonical_address
from app.demo import DemoError
from app.errors import AppError, ConfigurationError
from app.server import worker as worker_module
from app.server.protocol import BoundedHttp
from app.settings import load
from app.telemetry import context, logs, metrics
from app.transfer import TransferError
from app.upkeep import Skipped
from app.wiring import Services

T = TypeVar("T")

cli = typer.Typer(
    help="Document Lifecycle API", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
users = typer.Typer(help="Manage accounts.", no_args_is_help=True)
cli.add_typer(users, name="users")

_STARTUP_TIMEOUT = 15  # seconds for a server process to start, and then to answer each check of its supervisor
_UVICORN: dict[str, Any] = {
    "http": BoundedHttp,
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "timeout_graceful_shutdown": 10,  # seconds for open requests, after the jobs have had DRAIN_SECONDS
}

_FromDataDir = Annotated[Path | None, typer.Option(help="DATA_DIR of a service that keeps database and files there.")]
_FromDatabaseUrl = Annotated[str, typer.Option(envvar="FROM_DATABASE_URL", help="DATABASE_URL of the rows to copy.")]
_FromStorageUrl = Annotated[str, typer.Option(envvar="FROM_STORAGE_URL", help="STORAGE_URL of the files to copy.")]
_Email = Annotated[str, typer.Argument()]
_Concurrency = Annotated[int | None, typer.Option(min=1, help="Number of jobs at once; default: JOB_CONCURRENCY.")]
_HealthPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Serve /livez, /readyz and /metrics on this port; default: not at all."),
]
_Password = Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)]


def main() -> None:
    """Run a command. An expected failure is one line on stderr and a non-zero exit code."""
    try:
        cli()
    except ConfigurationError as error:
        sys.exit(f"configuration: {error}")
    except TransferError as error:
        sys.exit(f"transfer: {error}")
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except Skipped as error:
        sys.exit(f"skipped: {error}")
    except AppError as error:
        sys.exit(f"{error.code}: {error.detail}")


@cli.command()
def serve() -> None:
    """Migrate the database, then serve."""
    settings = load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json)
    asyncio.run(wiring.preflight(settings))
    _exit_cleanly()
    if settings.workers > 1:
        metrics.share_between_workers(settings.data_dir)
    uvicorn.run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        timeout_worker_healthcheck=_STARTUP_TIMEOUT,
        **_UVICORN,
    )


@cli.command()
def worker(concurrency: _Concurrency = None, health_port: _HealthPort = None) -> None:
    """Run the jobs of the servers with the same DATABASE_URL. Any number of workers can run, on any host."""
    settings = load()
    if concurrency is not None:
        settings = settings.model_copy(update={"job_concurrency": concurrency})
    config = uvicorn.Config(worker_module.create_app(settings), settings.host, health_port or 0, **_UVICORN)
    asyncio.run(wiring.preflight(settings))
    _exit_cleanly()
    uvicorn.Server(config).run(sockets=[] if health_port is None else None)


@cli.command()
def migrate() -> None:
    """Bring the database schema to the newest revision."""
    _with_services(lambda services: services.db.check())
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

    _with_services(work, claiming=True)


@cli.command()
def adopt() -> None:
    """Declare that the files of this environment's storage belong to its database, after a restore for instance."""
    adopted = _with_services(lambda services: services.claim.adopt())
    typer.echo(
        f"The files belong to this database now. Of the first {adopted.files} of them, "
        f"{adopted.with_document} have a document in it."
    )


@cli.command()
def transfer(
    from_data_dir: _FromDataDir = None, from_database_url: _FromDatabaseUrl = "", from_storage_url: _FromStorageUrl = ""
) -> None:
    """Copy a stopped service's rows and files into the database and storage of this environment.

    Only what is named is copied, and the source is not changed. A transfer that was interrupted continues when it is
    started again. Every row and every SHA-256 is verified at the target. Exit code 1: the copy is incomplete, or
    something was written meanwhile.
    """
    rows, files = (bool(from_data_dir or url) for url in (from_database_url, from_storage_url))
    if not rows and not files:
        sys.exit("transfer: say what to copy: --from-data-dir, --from-database-url or --from-storage-url")
    target = load()
    source = load(
        data_dir=from_data_dir or target.data_dir,
        database_url=from_database_url,
        storage_url=from_storage_url,
        broker_url="",
    )
    logs.configure("WARNING", as_json=target.logs_as_json)

    async def run() -> bool:
        return await wiring.build_transfer(source, target, rows=rows, files=files).run(typer.echo)

    sys.exit(0 if asyncio.run(run()) else 1)


@cli.command()
def demo(url: Annotated[str | None, typer.Option(help="URL of a running server.")] = None) -> None:
    """Show the main use case end to end, on a temporary server unless a URL is given."""
    demo_module.run(url)


@users.command("create")
def create_user(email: _Email, password: _Password) -> None:
    """Create an account, even where registration is closed."""
    try:
        new = NewUser(email=email, password=password)
    except ValidationError as error:
        sys.exit("; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors()))
    user = _with_services(lambda services: services.auth.create_user(new.email, new.password))
    typer.echo(f"{user.id}  {user.email}")


@users.command("disable")
def disable_user(email: _Email) -> None:
    """Disable an account and revoke its logins."""
    try:
        address = canonical_address(email)
    except ValueError as error:
        sys.exit(f"email: {error}")
    _with_services(lambda services: services.auth.disable(address))


@users.command("list")
def list_users() -> None:
    """List accounts, oldest first."""
    for user, active in _with_services(lambda services: services.auth.list_users()):
        typer.echo(f"{user.id}  {'active' if active else 'disabled':8}  {user.created_at:%Y-%m-%d}  {user.email}")


def _exit_cleanly() -> None:
    """Exit with code 0 on SIGTERM and SIGINT: uvicorn raises the signal again after its graceful stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


def _with_services(work: Callable[[Services], Awaitable[T]], *, claiming: bool = False) -> T:
    """Run one piece of work against the migrated database of the environment. `claiming` is what removes files."""
    settings = load()
    logs.configure("ERROR" if claiming else "WARNING", as_json=settings.logs_as_json)  # what is skipped, `work` raises

    async def run() -> T:
        services = wiring.build(settings)
        await services.open(dispatching=False, claiming=claiming)
        try:
            with context.acting(context.OPERATOR):
                return await work(services)
        finally:
            await services.close()

    return asyncio.run(run())
