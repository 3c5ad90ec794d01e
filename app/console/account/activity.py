"""What happened to an account, in words."""

from collections.abc import Mapping

from app.console.frame.formats import words
from app.events import catalogue
from app.events.catalogue import Event

_WORDS: Mapping[type[Event], str] = {
    catalogue.UserRegistered: "The account was made",
    catalogue.UserDisabled: "The account was disabled",
    catalogue.UserEnabled: "The account was enabled",
    catalogue.UserRoleChanged: "The role was changed",
    catalogue.UserQuotaChanged: "The quota was changed",
    catalogue.UserPasswordChanged: "The password was changed",
    catalogue.UserLoggedIn: "Signed in",
    catalogue.UserLoginFailed: "A wrong password was sent",
    catalogue.UserSessionEnded: "A session was ended",
    catalogue.UserLoggedOut: "Signed out",
    catalogue.UserRefreshTokenReused: "A refresh token was used twice, so its session was ended",
    catalogue.KeyCreated: "An API key was made",
    catalogue.KeyRotated: "An API key was rotated",
    catalogue.KeyRevoked: "An API key was revoked",
    catalogue.KeyExpiring: "An API key is about to expire",
    catalogue.WebhookCreated: "A webhook was added",
    catalogue.WebhookEdited: "A webhook was changed",
    catalogue.WebhookSecretRotated: "The secret of a webhook was replaced",
    catalogue.WebhookTested: "A webhook was tested",
    catalogue.WebhookRedelivered: "A webhook was told something again",
    catalogue.WebhookRecovered: "A webhook was told what it had missed",
    catalogue.WebhookDisabled: "A webhook was disabled, as it failed for too long or is gone",
    catalogue.WebhookDeleted: "A webhook was deleted",
    catalogue.OperatorRead: "An operator has read what belongs to the account",
}
_BY_NAME = {event.name: text for event, text in _WORDS.items()}


def said(event: str) -> str:
    """An event, by its name."""
    return _BY_NAME.get(event) or words(event).capitalize()
