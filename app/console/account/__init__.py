"""The account of whoever is signed in."""

from app.console.account import keys, sessions, show, sign_in

ROUTERS = (
    sign_in.router,
    show.reading,
    show.writing,
    keys.reading,
    keys.writing,
    sessions.reading,
    sessions.writing,
)
