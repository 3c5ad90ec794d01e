"""What happens to accounts, their sessions and their API keys."""

from pydantic.json_schema import SkipJsonSchema

from app.events.catalogue.base import Event


class UserRegistered(Event):
    """An account was created."""

    name = "user.registered"


class UserDisabled(Event):
    """The operator disabled an account, which ends its sessions. Its API keys are refused until it is enabled."""

    name = "user.disabled"


class UserEnabled(Event):
    """The operator enabled a disabled account."""

    name = "user.enabled"


class UserRoleChanged(Event):
    """An operator gave the account another role."""

    name = "user.role_changed"
    old: str
    new: str


class UserQuotaChanged(Event):
    """An operator changed quotas of the account: these. null: as the settings say; 0: no limit."""

    name = "user.quota_changed"
    limits: dict[str, int | None]


class UserErased(Event):
    """The operator erased an account with all that it owned."""

    name = "user.erased"


class UserPasswordChanged(Event):
    """The password was changed, which ended all sessions but the user's own. `family_id` is that one; it is missing if
    the operator changed the password."""

    name = "user.password_changed"
    family_id: str | SkipJsonSchema[None] = None


class _SessionEvent(Event):
    """`family_id` is the session's id: that of a login and all refresh tokens that descend from it."""

    family_id: str


class UserLoggedIn(_SessionEvent):
    """A user logged in with their password, which began a session."""

    name = "user.logged_in"


class UserLoginFailed(Event):
    """Somebody sent a wrong password, or an address that has no account."""

    name = "user.login_failed"
    _level = "warning"
    client: str | None


class UserSessionEnded(_SessionEvent):
    """A user or the operator ended a session from outside of it."""

    name = "user.session_ended"


class UserLoggedOut(_SessionEvent):
    """A user ended a session with its own refresh token."""

    name = "user.logged_out"


class UserRefreshTokenReused(_SessionEvent):
    """A refresh token was used again after its successor, so somebody else may have it: the session was
    ended."""

    name = "user.refresh_token_reused"
    _level = "warning"


class _KeyEvent(Event):
    """`key_id` is the API key's id. Its owner's account is the event's."""

    key_id: str


class KeyCreated(_KeyEvent):
    """An API key was made, which may do this until then. It never expires without `expires_at`."""

    name = "key.created"
    scopes: list[str]
    expires_at: str | SkipJsonSchema[None] = None


class KeyRotated(_KeyEvent):
    """An API key got another secret. The one before was good for so many seconds more."""

    name = "key.rotated"
    previous_valid_for: int


class KeyRevoked(_KeyEvent):
    """An API key was revoked, by its owner or the operator."""

    name = "key.revoked"


class KeyExpiring(_KeyEvent):
    """An API key expires within a week."""

    name = "key.expiring"
    expires_at: str
