// Verifies recorded deliveries with the public `standardwebhooks` package: one JSON object a line.
// Each is judged by the clock of its arrival, for the package refuses what is older than five minutes.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , packages, file] = process.argv;
const { Webhook } = createRequire(packages)("standardwebhooks");

let verified = 0;
for (const line of readFileSync(file, "utf8").split("\n").filter(Boolean)) {
    const delivery = JSON.parse(line);
    Date.now = () => delivery.received;
    new Webhook(delivery.secret).verify(delivery.body, delivery.headers);
    verified += 1;
}
console.log(`${verified} verified`);
