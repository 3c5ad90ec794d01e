"""What happened to an account, in words."""

from collections.abc import Mapping

from app.console.frame.formats import words
from app.events.catalogue import accounts, operators, webhooks
from app.events.catalogue.base import Event

_WORDS: Mapping[type[Event], str] = {
    accounts.UserRegistered: "The account was made",
    accounts.UserDisabled: "The account was disabled",
    accounts.UserEnabled: "The account was enabled",
    accounts.UserRoleChanged: "The role was changed",
    accounts.UserQuotaChanged: "The quota was changed",
    accounts.UserPasswordChanged: "The password was changed",
    accounts.UserLoggedIn: "Signed in",
    accounts.UserLoginFailed: "A wrong password was sent",
    accounts.UserSessionEnded: "A session was ended",
    accounts.UserLoggedOut: "Signed out",
    accounts.UserRefreshTokenReused: "A refresh token was used twice, so its session was ended",
    accounts.KeyCreated: "An API key was made",
    accounts.KeyRotated: "An API key was rotated",
    accounts.KeyRevoked: "An API key was revoked",
    accounts.KeyExpiring: "An API key is about to expire",
    webhooks.WebhookCreated: "A webhook was added",
    webhooks.WebhookEdited: "A webhook was changed",
    webhooks.WebhookSecretRotated: "The secret of a webhook was replaced",
    webhooks.WebhookTested: "A webhook was tested",
    webhooks.WebhookRedelivered: "A webhook was told something again",
    webhooks.WebhookRecovered: "A webhook was told what it had missed",
    webhooks.WebhookDisabled: "A webhook was disabled, as it failed for too long or is gone",
    webhooks.WebhookDeleted: "A webhook was deleted",
    operators.OperatorRead: "An operator has read what belongs to the account",
}
_BY_NAME = {event.name: text for event, text in _WORDS.items()}


def said(event: str) -> str:
    """An event, by its name."""
    return _BY_NAME.get(event) or words(event).capitalize()
