"""python -m app users: accounts, by their address."""

import sys
from typing import Annotated

import typer
from pydantic import Field, TypeAdapter

from app.accounts.erasure import Erased
from app.accounts.listing import ListedAccount
from app.auth.principal import Role
from app.auth.schemas import Password
from app.commands.fields import address, validated
from app.commands.services import with_services
from app.errors import ConfigurationError
from app.web.fields import LINE
from app.wiring.services import Services

users = typer.Typer(help="Manage accounts.", no_args_is_help=True)

_Address = Annotated[str, typer.Argument(metavar="EMAIL", help="The account's address.")]
_FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
_AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]
_Search = Annotated[str, typer.Option(help="Only accounts with this in their address.")]
_Limit = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="How many it may have. 0: no limit.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@users.command("create")
def create(email: _Address, *, password_stdin: _FromStdin = False) -> None:
    """Create an account, even where registration is closed. Asks for the password."""
    email, password = address(email), _new_password(from_stdin=password_stdin)
    user = with_services(lambda services: services.accounts.create(email, password))
    typer.echo(f"{user.id}  {user.email}")


@users.command("list")
def list_all(*, search: _Search = "", as_json: _AsJson = False) -> None:
    """List accounts, oldest first, with what they use."""
    text = validated("search", TypeAdapter(Annotated[str, Field(pattern=LINE)]), search)

    async def work(services: Services) -> None:
        await services.audit.note("listAccounts", {"search": text}, None)
        async for account in services.accounts.find(text):
            typer.echo(account.model_dump_json() if as_json else _line(account))

    with_services(work)


@users.command("show")
def show(email: _Address) -> None:
    """Show an account, what it uses, and how much it may use, as JSON."""
    email = address(email)

    async def work(services: Services) -> None:
        account_id = await services.accounts.id_of(email)
        await services.audit.note("getAccount", {}, account_id)
        typer.echo((await services.accounts.get(account_id)).model_dump_json(indent=2))

    with_services(work)


@users.command("enable")
def enable(email: _Address) -> None:
    """Enable a disabled account: its user can log in again."""
    email = address(email)
    with_services(lambda services: services.accounts.enable(email))
    typer.echo(f"{email} is active.")


@users.command("disable")
def disable(email: _Address) -> None:
    """Disable an account: its sessions and upload URLs end, and its jobs are cancelled."""
    email = address(email)
    cancelled = with_services(lambda services: services.accounts.disable(email))
    typer.echo(f"{email} is disabled; jobs cancelled: {cancelled}.")


@users.command("promote")
def promote(email: _Address) -> None:
    """Make an account an operator's: it may see and steer what all accounts have, but read no content."""
    email = address(email)
    with_services(lambda services: services.accounts.set_role(email, Role.OPERATOR))
    typer.echo(f"{email} is an operator.")


@users.command("demote")
def demote(email: _Address) -> None:
    """Make an operator an ordinary user again."""
    email = address(email)
    with_services(lambda services: services.accounts.set_role(email, Role.USER))
    typer.echo(f"{email} is no operator.")


@users.command("password")
def password(email: _Address, *, password_stdin: _FromStdin = False) -> None:
    """Change the password of an account, and end its sessions. Asks for the new one."""
    email, new = address(email), _new_password(from_stdin=password_stdin)
    with_services(lambda services: services.accounts.set_password(email, new))
    typer.echo(f"{email} has a new password; its sessions have ended.")


@users.command("sign-out")
def sign_out(email: _Address) -> None:
    """End all sessions of an account."""
    email = address(email)
    ended = with_services(lambda services: services.accounts.sign_out(email))
    typer.echo(f"{email} is signed out; sessions ended: {ended}.")


@users.command("revoke-keys")
def revoke_keys(email: _Address) -> None:
    """Revoke all API keys of an account."""
    email = address(email)
    revoked = with_services(lambda services: services.accounts.revoke_keys(email))
    typer.echo(f"{email} has no API keys any more; revoked: {revoked}.")


@users.command("quota")
def quota(
    email: _Address,
    *,
    size: Annotated[
        int | None, typer.Option("--bytes", min=0, max=2**63 - 1, help="Bytes of its files. 0: no limit.")
    ] = None,
    documents: _Limit = None,
    announced: _Limit = None,
    jobs: _Limit = None,
    default: Annotated[bool, typer.Option("--default", help="Whatever is not given: as the settings say.")] = False,
) -> None:
    """Show what an account uses and may use, and change what is given. 0: no limit."""
    email = address(email)
    given = {"bytes": size, "documents": documents, "announced": announced, "jobs": jobs}
    limits = {name: limit for name, limit in given.items() if limit is not None or default}
    used, allowed = with_services(lambda services: services.accounts.change_quota(email, limits))
    for name, limit in allowed:
        typer.echo(f"{name:9}  {getattr(used, name)} of {'any number' if limit is None else limit}")


@users.command("erase")
def erase(email: _Address, *, yes: _Yes = False, as_json: _AsJson = False) -> None:
    """Delete an account with its documents, those in the trash too, files, results and jobs. This cannot be undone.

    Says what is left, and why; with --json, the id of each event, too. If it is interrupted, run it again.
    """
    email = address(email)
    if not yes:
        typer.confirm(f"Delete {email} and all that it owns?", abort=True)

    async def work(services: Services) -> None:
        erased = await services.accounts.erase(email)
        if not as_json:
            typer.echo(_erased(email, erased))
            return
        typer.echo(erased.model_dump_json())
        async for event in services.accounts.erasure.events(erased.user_id):
            typer.echo(event.model_dump_json())

    with_services(work, claiming=True)


def _new_password(*, from_stdin: bool) -> str:
    """A new password. Never from the command line: a list of processes shows that."""
    if from_stdin:
        sent = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    elif not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask for the password: use --password-stdin")
    else:
        sent = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return validated("password", TypeAdapter(Password), sent)


def _erased(email: str, erased: Erased) -> str:
    lines = [f"{email} is erased: {erased.documents} documents, {erased.trashed} of them in the trash."]
    lines.append(f"Stored files that went with them: {erased.files}.")
    for each in erased.left:
        count = "" if each.count is None else f"{each.count} "
        until = f", kept for {each.until}" if each.until else ""
        lines.append(f"Left: {count}{each.what}{until}: {each.why}.")
    return "\n".join(lines)


def _line(account: ListedAccount) -> str:
    state = "disabled" if not account.active else "active" if account.role is Role.USER else account.role
    logged_in = f"{account.last_login_at:%Y-%m-%d}" if account.last_login_at else "never"
    usage = f"{account.documents} documents  {account.bytes} bytes  {account.live_jobs} jobs"
    return (
        f"{account.id}  {state:8}  since {account.created_at:%Y-%m-%d}  logged in {logged_in:10}  "
        f"{usage}  {account.email}"
    )
