// Verifies deliveries with svix: reads a list of {secret, body, headers}, prints which are accepted.
const { readFileSync } = require("node:fs");
const { Webhook, WebhookVerificationError } = require("svix");

const accepted = JSON.parse(readFileSync(0, "utf8")).map(({ secret, body, headers }) => {
  try {
    new Webhook(secret).verify(Buffer.from(body), headers);
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
});
console.log(JSON.stringify(accepted));
