"""Verifies recorded deliveries with the public `standardwebhooks` package: one JSON object a line.

Each is judged by the clock of its arrival, for the package refuses what is older than five minutes.
"""

import json
import sys
from datetime import datetime

from standardwebhooks import webhooks


class Arrival(datetime):
    """The time, as it was when a delivery arrived."""

    received = 0.0

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(cls.received, tz)


webhooks.datetime = Arrival

verified = 0
with open(sys.argv[1], encoding="utf-8") as file:
    for line in file:
        delivery = json.loads(line)
        Arrival.received = delivery["received"] / 1000
        webhooks.Webhook(delivery["secret"]).verify(delivery["body"], delivery["headers"])
        verified += 1
print(f"{verified} verified")
