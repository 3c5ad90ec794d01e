"""A program that is told by a webhook: `WEBHOOK_SECRET=whsec_… .venv/bin/python examples/webhook_receiver.py 9000`.

It prints each message once, however often it is sent: what has been seen is in `seen.db`. Besides Python's standard
library it needs `standardwebhooks`. Put it behind something that speaks HTTPS.
"""

import os
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

MOST = 1024 * 1024  # bytes of a body; those that are sent are far smaller

if len(sys.argv) != 2 or not os.environ.get("WEBHOOK_SECRET"):
    raise SystemExit(__doc__)
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen = sqlite3.connect("seen.db", isolation_level=None)
seen.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY)")


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # seconds that a sender may be silent

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if length > MOST:
            return self.answer(413)
        body = self.rfile.read(length)
        try:
            message = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError:
            return self.answer(401)  # not ours, or older than five minutes
        # The id is kept and the work done in one transaction: what fails is sent again, what is done is not repeated.
        with seen:  # commits, or rolls back and raises: then there is no answer
            seen.execute("BEGIN IMMEDIATE")
            if seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (self.headers["webhook-id"],)).rowcount:
                sys.stdout.write(f"{message['timestamp']} {message['type']} {message['data']}\n")
                sys.stdout.flush()
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
