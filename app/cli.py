"""The command line: python -m app serve | migrate | users | sweep | demo."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
import uvicorn
from pydantic import ValidationError

from app import demo as demo_module, logs, metrics, wiring
from app.auth.schemas import NewUser, canonical_address
from app.errors import AppError
from app.protocol import BoundedHttp
from app.settings import ConfigurationError, load
from app.wiring import Services

T = TypeVar("T")

cli = typer.Typer(
    help="Document Lifecycle API", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
users = typer.Typer(help="Manage accounts.", no_args_is_help=True)
cli.add_typer(users, name="users")

STARTUP_LIMIT = 15  # seconds that a worker may take to start or, while it serves, to show a sign of life
EXIT_MARGIN = 10  # seconds that open requests get, after the jobs have had DRAIN_SECONDS

Email = Annotated[str, typer.Argument()]
Password = Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)]


def main() -> None:
    """Run a command; an expected failure is one line and a non-zero exit."""
    try:
        cli()
    except ConfigurationError as error:
        sys.exit(f"configuration: {error}")
    except AppError as error:
        sys.exit(f"{error.code}: {error.detail}")


@cli.command()
def serve() -> None:
    """Migrate the database, then serve."""
    settings = load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json)
    asyncio.run(wiring.refuse_unusable(settings))
    # uvicorn raises the signal again after its graceful stop; a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if settings.workers > 1:
        metrics.share_between_workers(settings.data_dir)
    uvicorn.run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=EXIT_MARGIN,
        timeout_worker_healthcheck=STARTUP_LIMIT,
    )


@cli.command()
def migrate() -> None:
    """Bring the database schema to the newest revision."""
    _with_services(lambda services: services.db.check())
    typer.echo("The database is up to date.")


@cli.command()
def sweep() -> None:
    """Do once what every server does now and then: requeue lost jobs, forget what expired, remove orphaned files."""

    async def work(services: Services) -> None:
        await services.sweeper.sweep_lost()
        await services.sweeper.sweep_rows()
        await services.sweeper.sweep_files()

    _with_services(work)


@cli.command()
def demo() -> None:
    """Show the main job end to end on a throwaway server."""
    demo_module.run()


@users.command("create")
def create_user(email: Email, password: Password) -> None:
    """Create an account, also where registration is closed."""
    try:
        new = NewUser(email=email, password=password)
    except ValidationError as error:
        sys.exit("; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors()))
    user = _with_services(lambda services: services.auth.create_user(new.email, new.password, actor="operator"))
    typer.echo(f"{user.id}  {user.email}")


@users.command("disable")
def disable_user(email: Email) -> None:
    """Lock an account and revoke its logins."""
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


def _with_services(work: Callable[[Services], Awaitable[T]]) -> T:
    """Run one piece of work against the migrated database of the environment."""
    settings = load()
    logs.configure("WARNING", as_json=settings.logs_as_json)

    async def run() -> T:
        services = wiring.build(settings)
        await services.open()
        try:
            return await work(services)
        finally:
            await services.close()

    return asyncio.run(run())
