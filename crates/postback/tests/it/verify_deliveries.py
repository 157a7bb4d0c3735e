"""Verifies recorded deliveries with the public `standardwebhooks` package: one JSON object a line."""

import json
import sys

from standardwebhooks.webhooks import Webhook

verified = 0
with open(sys.argv[1], encoding="utf-8") as file:
    for line in file:
        delivery = json.loads(line)
        Webhook(delivery["secret"]).verify(delivery["body"], delivery["headers"])
        verified += 1
print(f"{verified} verified")
