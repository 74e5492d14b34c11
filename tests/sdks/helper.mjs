// Signs and verifies webhooks with the providers' official libraries for Node, for the tests. It speaks as helper.py does.
//
// The libraries stand where scripts/with-sdks put them: in the folder that POSTROOM_TEST_SDKS names.

import crypto from "node:crypto";
import { EventEmitter } from "node:events";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const folder = path.resolve(process.env.POSTROOM_TEST_SDKS);
const require = createRequire(path.join(folder, "helper.mjs"));
const load = (file) => import(pathToFileURL(path.join(folder, "node_modules", file)));

// Node 18 has it only behind a flag.
globalThis.crypto ??= crypto.webcrypto;

// What a library logs does not come between our lines.
for (const kind of ["log", "debug", "info", "warn", "error"]) console[kind] = () => {};

// The libraries ask the clock, which stands where the test says.
let now = Date.now();
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length > 0 ? given : [now]));
  }
  static now() {
    return now;
  }
};

const Stripe = require("stripe");
const { WorkOS } = require("@workos-inc/node");
const { verifyWebhook } = require("@clerk/backend/webhooks");
require("@shopify/shopify-api/adapters/node");
const { shopifyApi } = require("@shopify/shopify-api");
const { createSHA256HMAC } = require("@shopify/shopify-api/runtime");
const { LinearWebhookClient } = await load("@linear/sdk/dist/webhooks/index.mjs");
const { AwsLambdaReceiver } = require("@zoom/rivet/chatbot");
const github = await load("@octokit/webhooks-methods/dist-node/index.js");

// It fetches the certificate; here that is always the one of the test.
const https = require("https");
const SnsValidator = require("sns-validator");
const sns = (certificate) => {
  https.get = (url, answer) => {
    const response = new EventEmitter();
    response.statusCode = 200;
    answer(response);
    response.emit("data", Buffer.from(certificate));
    response.emit("end");
    return new EventEmitter();
  };
  return new SnsValidator();
};

const stripe = new Stripe("sk_test_none");
const workos = new WorkOS("sk_test_none");

const shopify = (secret) =>
  shopifyApi({
    apiKey: "none",
    apiSecretKey: secret,
    apiVersion: "2026-01",
    hostName: "app.example.com",
    isEmbeddedApp: false,
    logger: { level: 0, log: () => {} },
  });

const providers = {
  stripe: {
    signed_by: "stripe",
    sign(r) {
      const timestamp = Math.floor(now / 1000);
      r.put("Stripe-Signature", stripe.webhooks.generateTestHeaderString({ payload: r.text, secret: r.secret, timestamp }));
    },
  },
  github: {
    signed_by: "@octokit/webhooks-methods",
    verified_by: "@octokit/webhooks-methods",
    async sign(r) {
      r.put("X-Hub-Signature-256", await github.sign(r.secret, r.text));
    },
    verify: (r) => github.verify(r.secret, r.text, r.header("X-Hub-Signature-256")),
  },
  shopify: {
    signed_by: "@shopify/shopify-api",
    async sign(r) {
      r.put("X-Shopify-Hmac-Sha256", await createSHA256HMAC(r.secret, r.text));
    },
    verified_by: "@shopify/shopify-api",
    async verify(r) {
      const headers = {};
      for (const [name] of r.headers) headers[name] = r.header(name);
      const rawRequest = { method: r.method, url: r.url, headers };
      const told = await shopify(r.secret).webhooks.validate({ rawBody: r.text, rawRequest, rawResponse: {} });
      if (!told.valid) throw new Error(JSON.stringify(told));
      return true;
    },
  },
  zoom: {
    verified_by: "@zoom/rivet",
    async verify(r) {
      const receiver = new AwsLambdaReceiver({ webhooksSecretToken: r.secret });
      receiver.init({ eventEmitter: undefined });
      const headers = Object.fromEntries(r.headers.map(([name]) => [name, r.header(name)]));
      const told = await receiver.start()({ headers, body: r.text, isBase64Encoded: false }, {});
      if (told.statusCode !== 200) throw new Error(told.body);
      return true;
    },
  },
  linear: {
    verified_by: "@linear/sdk",
    verify: (r) => new LinearWebhookClient(r.secret).verify(r.body, r.header("Linear-Signature")),
  },
  clerk: {
    verified_by: "@clerk/backend",
    async verify(r) {
      const request = new Request(r.url, { method: "POST", headers: new Headers(r.headers), body: r.body });
      await verifyWebhook(request, { signingSecret: r.secret });
      return true;
    },
  },
  "aws-sns": {
    verified_by: "sns-validator",
    verify: (r) =>
      new Promise((right, wrong) => {
        sns(r.options.cert_pem).validate(r.text, (error) => (error ? wrong(error) : right(true)));
      }),
  },
  workos: {
    signed_by: "@workos-inc/node",
    async sign(r) {
      // It signs what JSON.stringify makes of the payload, so that is what is sent.
      const payload = JSON.parse(r.text);
      if (JSON.stringify(payload) !== r.text) throw new Error("this library signs compact JSON only");
      r.put("WorkOS-Signature", `t=${now}, v1=${await workos.webhooks.computeSignature(now, payload, r.secret)}`);
    },
  },
};

class Received {
  constructor(asked) {
    this.provider = asked.provider;
    this.secret = asked.secret ?? "";
    this.options = asked.options ?? {};
    this.method = asked.method ?? "POST";
    this.url = asked.url ?? "";
    this.headers = asked.headers ?? [];
    this.body = Buffer.from(asked.body ?? "", "base64");
  }

  get text() {
    return this.body.toString("utf8");
  }

  header(name) {
    const values = this.headers.filter(([known]) => known.toLowerCase() === name.toLowerCase());
    return values.length > 0 ? values.map(([, value]) => value).join(", ") : undefined;
  }

  put(name, value) {
    this.headers = this.headers.filter(([known]) => known.toLowerCase() !== name.toLowerCase());
    this.headers.push([name, value]);
  }
}

async function answer(asked) {
  if (asked.do === "list") {
    const told = ({ signed_by = null, verified_by = null }) => ({ signed_by, verified_by });
    return Object.fromEntries(Object.entries(providers).map(([name, known]) => [name, told(known)]));
  }
  const request = new Received(asked);
  const known = providers[request.provider];
  now = asked.now;
  if (asked.do === "sign") {
    await known.sign(request);
    return { url: request.url, headers: request.headers, body: request.body.toString("base64") };
  }
  try {
    const valid = await known.verify(request);
    return { valid: valid === true, why: String(valid) };
  } catch (error) {
    return { valid: false, why: String(error).slice(0, 300) };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let told;
  try {
    told = await answer(JSON.parse(line));
  } catch (error) {
    told = { error: String(error).slice(0, 300) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
