"""Signs and verifies webhooks with the providers' official Python libraries, for the tests.

One JSON object per line comes in, one goes out; binary is base64, times are milliseconds since 1970.

    {"do": "list"}                                     {"provider": {"signed_by": ..., "verified_by": ...}, ...}
    {"do": "sign", "provider", "secret", "now", ...}   {"headers": [[name, value], ...], "body": ...}
    {"do": "verify", ... "headers": [[name, value]]}   {"valid": true} or {"valid": false, "why": ...}

A provider without a library that signs has its documented algorithm here, in a few lines that share nothing with the
code under test. Only its own library verifies. Nothing here uses the network.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import sys
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote

import time_machine

# Libraries that print or log do not do so between our lines.
answers = sys.stdout
sys.stdout = open(os.devnull, "w", encoding="utf-8")
logging.disable(logging.CRITICAL)

STANDARD = "the library of Standard Webhooks"
providers = {}


def provider(name):
    return providers.setdefault(name, {"signed_by": None, "verified_by": None})


def signs(*names, by="its documented algorithm"):
    def note(function):
        for name in names:
            provider(name).update(signed_by=by, sign=function)
        return function

    return note


def verifies(*names, by):
    def note(function):
        for name in names:
            provider(name).update(verified_by=by, verify=function)
        return function

    return note


class Request:
    def __init__(self, asked):
        self.provider = asked["provider"]
        self.secret = asked.get("secret") or ""
        self.private = asked.get("private") or ""
        self.options = asked.get("options") or {}
        self.method = asked.get("method", "POST")
        self.url = asked.get("url", "")
        self.headers = [(name, value) for name, value in asked.get("headers", [])]
        self.body = base64.b64decode(asked.get("body", ""))
        self.now = asked["now"]

    @property
    def seconds(self):
        return self.now // 1000

    @property
    def text(self):
        return self.body.decode("utf-8")

    def header(self, name):
        """As frameworks give it to their users: several lines joined, none is None."""
        values = [value for known, value in self.headers if known.lower() == name.lower()]
        return ", ".join(values) if values else None

    def put(self, name, value):
        self.headers = [(known, old) for known, old in self.headers if known.lower() != name.lower()]
        self.headers.append((name, value))

    def id(self, name):
        if self.header(name) is None:
            self.put(name, "msg_2Zw8yJq4Tb7sX1cVn5Lk9Rd3")
        return self.header(name)


def mac(request, *parts, algorithm=hashlib.sha256, key=None):
    message = b"".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return hmac.new(request.secret.encode() if key is None else key, message, algorithm).digest()


def b64(data):
    return base64.b64encode(data).decode()


def rfc3339(request, digits):
    at = datetime.fromtimestamp(request.seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{at}.{request.now % 1000:03}{'0' * (digits - 3)}Z" if digits else f"{at}Z"


# Documented algorithms: the signature of the body alone in a header.


def body_alone(name, header, encode=bytes.hex, prefix="", algorithm=hashlib.sha256):
    @signs(name)
    def sign(r):
        r.put(header, prefix + encode(mac(r, r.body, algorithm=algorithm)))


body_alone("asana", "X-Hook-Signature")
body_alone("bitbucket", "X-Hub-Signature", prefix="sha256=")
body_alone("coinbase-commerce", "X-CC-Webhook-Signature")
body_alone("docusign", "X-DocuSign-Signature-1", b64)
body_alone("dropbox", "X-Dropbox-Signature")
body_alone("intercom", "X-Hub-Signature", prefix="sha1=", algorithm=hashlib.sha1)
body_alone("jira", "X-Hub-Signature", prefix="sha256=")
body_alone("line", "X-Line-Signature", b64)
body_alone("linear", "Linear-Signature")
body_alone("meta", "X-Hub-Signature-256", prefix="sha256=")
body_alone("pagerduty", "X-PagerDuty-Signature", prefix="v1=")
body_alone("razorpay", "X-Razorpay-Signature")
body_alone("sentry", "Sentry-Hook-Signature")
body_alone("typeform", "Typeform-Signature", b64, prefix="sha256=")
body_alone("vercel", "x-vercel-signature", algorithm=hashlib.sha1)
body_alone("xero", "x-xero-signature", b64)


@signs("hmac", by="the options of its source")
def _(r):
    r.put(r.options["signature_header"], r.options["signature_prefix"] + mac(r, r.body).hex())


# Documented algorithms: other parts of the request are signed too.


@signs("calendly")
def _(r):
    r.put("Calendly-Webhook-Signature", f"t={r.seconds},v1={mac(r, r.seconds, '.', r.body).hex()}")


@signs("roblox")
def _(r):
    r.put("roblox-signature", f"t={r.seconds},v1={b64(mac(r, r.seconds, '.', r.body))}")


@signs("zoom")
def _(r):
    r.put("x-zm-request-timestamp", str(r.seconds))
    r.put("x-zm-signature", "v0=" + mac(r, "v0:", r.seconds, ":", r.body).hex())


@signs("zendesk")
def _(r):
    at = rfc3339(r, 0)
    r.put("X-Zendesk-Webhook-Signature-Timestamp", at)
    r.put("X-Zendesk-Webhook-Signature", b64(mac(r, at, r.body)))


@signs("twitch")
def _(r):
    name, at = r.id("Twitch-Eventsub-Message-Id"), rfc3339(r, 9)
    r.put("Twitch-Eventsub-Message-Timestamp", at)
    r.put("Twitch-Eventsub-Message-Signature", "sha256=" + mac(r, name, at, r.body).hex())


@signs("square")
def _(r):
    r.put("x-square-hmacsha256-signature", b64(mac(r, r.url, r.body)))


@signs("trello")
def _(r):
    r.put("X-Trello-Webhook", b64(mac(r, r.body, r.url, algorithm=hashlib.sha1)))


@signs("mandrill")
def _(r):
    fields = sorted(parse_qsl(r.text, keep_blank_values=True))
    signed = r.url + "".join(name + value for name, value in fields)
    r.put("X-Mandrill-Signature", b64(mac(r, signed, algorithm=hashlib.sha1)))


@signs("mailgun")
def _(r):
    token, at = hashlib.sha256(r.body + str(r.now).encode()).hexdigest()[:50], str(r.seconds)
    body = json.loads(r.body)
    body["signature"] = {"timestamp": at, "token": token, "signature": mac(r, at, token).hex()}
    r.body = json.dumps(body, separators=(",", ":")).encode()


@verifies("mailgun", by="mailgun")
def _(r):
    from mailgun.security import SecurityGuard

    signed = json.loads(r.body)["signature"]
    # Without its limit of 15 minutes: Mailgun's documentation says that webhooks may be late.
    return SecurityGuard.verify_webhook(r.secret, signed["token"], signed["timestamp"], signed["signature"], 0)


@signs("paypal", by="paypalrestsdk")
def _(r):
    from paypalrestsdk.notifications import WebhookEvent

    name, at = r.id("PAYPAL-TRANSMISSION-ID"), rfc3339(r, 0)
    message = WebhookEvent._get_expected_sig(name, at, r.options["webhook_id"], r.text)
    r.put("PAYPAL-TRANSMISSION-TIME", at)
    r.put("PAYPAL-AUTH-ALGO", "SHA256withRSA")
    r.put("PAYPAL-CERT-URL", "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77")
    r.put("PAYPAL-TRANSMISSION-SIG", b64(rsa(r, message.encode())))


@verifies("paypal", by="paypalrestsdk")
def _(r):
    from OpenSSL import crypto
    from paypalrestsdk.notifications import WebhookEvent

    # It fetches the certificate; here that is always the one of the test. And pyOpenSSL has lost the function it calls.
    crypto.verify = lambda cert, signature, message, _: rsa_verify(cert.to_cryptography(), signature, message)
    cert = crypto.load_certificate(crypto.FILETYPE_PEM, r.options["cert_pem"].encode())
    name, at, signature, algorithm = (
        r.header(f"PAYPAL-{part}")
        for part in ("TRANSMISSION-ID", "TRANSMISSION-TIME", "TRANSMISSION-SIG", "AUTH-ALGO")
    )
    return WebhookEvent._is_common_name_valid(cert) and WebhookEvent._verify_signature(
        name, at, r.options["webhook_id"], r.text, cert, signature, algorithm
    )


@signs("aws-sns")
def _(r):
    from cryptography.hazmat.primitives import hashes

    message = json.loads(r.body)
    message.setdefault("SignatureVersion", "2")
    message.setdefault("TopicArn", "arn:aws:sns:eu-west-1:123456789012:invoices")
    message["SigningCertURL"] = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7506a1e35b36ef5a.pem"
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    if message["Type"] == "Notification":
        names = [name for name in names if name not in ("SubscribeURL", "Token")]
    signed = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    algorithm = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
    message["Signature"] = b64(rsa(r, signed.encode(), algorithm))
    r.body = json.dumps(message).encode()
    r.put("x-amz-sns-message-type", message["Type"])


def rsa(request, message, algorithm=None):
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    key = serialization.load_pem_private_key(request.private.encode(), None)
    return key.sign(message, padding.PKCS1v15(), algorithm or hashes.SHA256())


def rsa_verify(certificate, signature, message):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    certificate.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())


@signs("plaid", by="PyJWT")
def _(r):
    import jwt

    claims = {"iat": r.seconds, "request_body_sha256": hashlib.sha256(r.body).hexdigest()}
    kid = json.loads(r.options["jwk"])["kid"]
    r.put("Plaid-Verification", jwt.encode(claims, r.private, "ES256", {"kid": kid}))


@verifies("plaid", by="PyJWT")
def _(r):
    import jwt

    # As Plaid's documentation does it; its own library has nothing for it.
    key = jwt.PyJWK(json.loads(r.options["jwk"])).key
    claims = jwt.decode(r.header("Plaid-Verification"), key, ["ES256"])
    return r.seconds - claims["iat"] <= 300 and hmac.compare_digest(
        claims["request_body_sha256"], hashlib.sha256(r.body).hexdigest()
    )


@signs("monday", by="PyJWT")
def _(r):
    import jwt

    claims = {"accountId": 8675309, "userId": 9603417, "aud": r.url, "iat": r.seconds, "exp": r.seconds + 300}
    r.put("Authorization", jwt.encode(claims, r.secret, "HS256"))


@signs("jwt", by="PyJWT")
def _(r):
    import jwt

    claims = {"sub": "sender", "iat": r.seconds, "exp": r.seconds + 300}
    r.put("Authorization", "Bearer " + jwt.encode(claims, r.secret, "HS256"))


@verifies("monday", "jwt", by="PyJWT")
def _(r):
    import jwt

    jwt.decode(r.header("Authorization").removeprefix("Bearer "), r.secret, ["HS256"], {"verify_aud": False})


# Secrets that are sent as they are.


@signs("azure-event-grid")
def _(r):
    r.url += "&code=" + quote(r.secret, safe="")


@signs("gitlab-token")
def _(r):
    r.put("X-Gitlab-Token", r.secret)


@signs("telegram")
def _(r):
    r.put("X-Telegram-Bot-Api-Secret-Token", r.secret)


@signs("okta")
def _(r):
    r.put("Authorization", r.secret)


@signs("token", by="the options of its source")
def _(r):
    r.put(r.options["header"], r.secret)


@signs("basic-auth", "postmark-basic-auth", by="RFC 7617")
def _(r):
    r.put("Authorization", "Basic " + b64(r.secret.encode()))


@signs("none", by="nobody")
def _(r):
    pass


# Standard Webhooks and its kin.


def standard(r, prefix, webhook):
    name = r.id(f"{prefix}-id")
    r.put(f"{prefix}-timestamp", str(r.seconds))
    at = datetime.fromtimestamp(r.seconds, timezone.utc)
    r.put(f"{prefix}-signature", webhook.sign(name, at, r.text))


@signs("standard-webhooks", "openai", "gitlab-signing", by=STANDARD)
def _(r):
    from standardwebhooks import Webhook

    standard(r, "webhook", Webhook(r.secret))


@verifies("standard-webhooks", "gitlab-signing", by=STANDARD)
def _(r):
    from standardwebhooks import Webhook

    Webhook(r.secret).verify(r.body, dict(r.headers), json_parse=False)


@signs("svix", "clerk", "resend", by="svix")
def _(r):
    from svix.webhooks import Webhook

    standard(r, "svix", Webhook(r.secret))


@verifies("svix", by="svix")
def _(r):
    from svix.webhooks import Webhook

    Webhook(r.secret).verify(r.body, dict(r.headers))


@verifies("resend", by="resend")
def _(r):
    import resend

    headers = {name: r.header(f"svix-{name}") for name in ("id", "timestamp", "signature")}
    resend.Webhooks.verify({"payload": r.text, "headers": headers, "webhook_secret": r.secret})


@verifies("openai", by="openai")
def _(r):
    from openai import OpenAI

    OpenAI(api_key="none").webhooks.verify_signature(r.body, dict(r.headers), secret=r.secret)


# One library each.


@verifies("stripe", by="stripe")
def _(r):
    import stripe

    stripe.WebhookSignature.verify_header(r.body, r.header("Stripe-Signature"), r.secret, tolerance=300)


@signs("slack", by="slack_sdk")
def _(r):
    from slack_sdk.signature import SignatureVerifier

    at = str(r.seconds)
    r.put("X-Slack-Request-Timestamp", at)
    r.put("X-Slack-Signature", SignatureVerifier(r.secret).generate_signature(timestamp=at, body=r.body))


@verifies("slack", by="slack_sdk")
def _(r):
    from slack_sdk.signature import SignatureVerifier

    return SignatureVerifier(r.secret).is_valid_request(r.body, dict(r.headers))


@verifies("workos", by="workos")
def _(r):
    from workos.webhooks import _verification

    header = r.header("WorkOS-Signature")
    _verification.verify_header(event_body=r.body, event_signature=header, secret=r.secret)


@signs("paddle", by="paddle-python-sdk")
def _(r):
    from paddle_billing.Notifications.PaddleSignature import PaddleSignature

    signature = PaddleSignature.calculate_hmac(r.secret, f"{r.seconds}:".encode() + r.body).hexdigest()
    r.put("Paddle-Signature", f"ts={r.seconds};h1={signature}")


@verifies("paddle", by="paddle-python-sdk")
def _(r):
    from paddle_billing.Notifications import Secret, Verifier

    class Received:
        body = r.body
        headers = {"Paddle-Signature": r.header("Paddle-Signature")}

    return Verifier().verify(Received, Secret(r.secret))


@signs("adyen-platform", by="Adyen")
def _(r):
    from Adyen.util import generate_payload_sig

    r.put("HmacSignature", generate_payload_sig(r.body, r.secret).decode())


@verifies("adyen-platform", by="Adyen")
def _(r):
    from Adyen.util import is_valid_hmac_payload

    return is_valid_hmac_payload(r.header("HmacSignature"), r.secret, r.body)


@signs("hubspot", by="hubspot-api-client")
def _(r):
    from hubspot.utils.signature import Signature

    at = str(r.now)
    r.put("X-HubSpot-Request-Timestamp", at)
    r.put("X-HubSpot-Signature-v3", Signature.get_signature(r.secret, r.text, "v3", r.url, r.method, at))


@verifies("hubspot", by="hubspot-api-client")
def _(r):
    from hubspot.utils.signature import Signature

    signature, at = r.header("X-HubSpot-Signature-v3"), r.header("X-HubSpot-Request-Timestamp")
    return Signature.is_valid(signature, r.secret, r.text, r.url, r.method, "v3", at)


def form(request):
    """With every value of a name that stands there more than once, as the frameworks give it."""

    class Fields(dict):
        def getlist(self, name):
            return self[name]

    fields = Fields()
    for name, value in parse_qsl(request.text, keep_blank_values=True):
        fields.setdefault(name, []).append(value)
    return fields


@signs("twilio", by="twilio")
def _(r):
    from twilio.request_validator import RequestValidator

    fields = {} if "bodySHA256=" in r.url else form(r)
    r.put("X-Twilio-Signature", RequestValidator(r.secret).compute_signature(r.url, fields))


@verifies("twilio", by="twilio")
def _(r):
    from twilio.request_validator import RequestValidator, SIGNATURE_SETTINGS_HEADER, get_signature_algorithm

    fields = r.text if "bodySHA256=" in r.url else form(r)
    algorithm = get_signature_algorithm(r.header(SIGNATURE_SETTINGS_HEADER))
    return RequestValidator(r.secret).validate(r.url, fields, r.header("X-Twilio-Signature"), algorithm)


@signs("sendgrid", by="cryptography")
def _(r):
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    at, key = str(r.seconds), serialization.load_pem_private_key(r.private.encode(), None)
    r.put("X-Twilio-Email-Event-Webhook-Timestamp", at)
    signature = key.sign(at.encode() + r.body, ec.ECDSA(hashes.SHA256()))
    # Such signatures differ in length; one that base64 has to pad makes every run the same.
    while len(signature) % 3 == 0:
        signature = key.sign(at.encode() + r.body, ec.ECDSA(hashes.SHA256()))
    r.put("X-Twilio-Email-Event-Webhook-Signature", b64(signature))


@verifies("sendgrid", by="sendgrid")
def _(r):
    from sendgrid.helpers.eventwebhook import EventWebhook

    signature = r.header("X-Twilio-Email-Event-Webhook-Signature")
    return EventWebhook(r.secret).verify_signature(
        r.text, signature, r.header("X-Twilio-Email-Event-Webhook-Timestamp")
    )


@signs("discord", by="PyNaCl")
def _(r):
    from nacl.signing import SigningKey

    at = str(r.seconds)
    r.put("X-Signature-Timestamp", at)
    r.put("X-Signature-Ed25519", SigningKey(bytes.fromhex(r.private)).sign(at.encode() + r.body).signature.hex())


@verifies("discord", by="discord-interactions")
def _(r):
    from discord_interactions import verify_key

    return verify_key(r.body, r.header("X-Signature-Ed25519"), r.header("X-Signature-Timestamp"), r.secret)


@signs("standard-webhooks-v1a", by="PyNaCl")
def _(r):
    from nacl.signing import SigningKey

    name, at = r.id("webhook-id"), str(r.seconds)
    seed = base64.b64decode(r.private.removeprefix("whsk_"))[:32]
    r.put("webhook-timestamp", at)
    signature = SigningKey(seed).sign(f"{name}.{at}.".encode() + r.body).signature
    r.put("webhook-signature", "v1a," + b64(signature))


@signs("adyen", by="Adyen")
def _(r):
    from Adyen.util import generate_notification_sig

    document = json.loads(r.body)
    for item in document["notificationItems"]:
        item = item["NotificationRequestItem"]
        signature = generate_notification_sig(item, r.secret).decode()
        item.setdefault("additionalData", {})["hmacSignature"] = signature
    r.body = json.dumps(document).encode()


@verifies("adyen", by="Adyen")
def _(r):
    from Adyen.util import is_valid_hmac_notification

    return is_valid_hmac_notification(json.loads(r.body), r.secret) is True


@verifies("square", by="squareup")
def _(r):
    from square.utils.webhooks_helper import verify_signature

    header = r.header("x-square-hmacsha256-signature")
    return verify_signature(
        request_body=r.text, signature_header=header, signature_key=r.secret, notification_url=r.url
    )


@verifies("razorpay", by="razorpay")
def _(r):
    from razorpay.utility import Utility

    return Utility().verify_webhook_signature(r.text, r.header("X-Razorpay-Signature"), r.secret)


@verifies("line", by="line-bot-sdk")
def _(r):
    from linebot.v3.webhook import SignatureValidator

    return SignatureValidator(r.secret).validate(r.text, r.header("X-Line-Signature"))


@verifies("coinbase-commerce", by="coinbase-commerce")
def _(r):
    from coinbase_commerce.webhook import WebhookSignature

    return WebhookSignature.verify_sig_header(r.text, r.header("X-CC-Webhook-Signature"), r.secret)


def answer(asked):
    if asked["do"] == "list":
        return {name: {key: known[key] for key in ("signed_by", "verified_by")} for name, known in providers.items()}
    request = Request(asked)
    known = providers[request.provider]
    with time_machine.travel(request.now / 1000, tick=False):
        if asked["do"] == "sign":
            known["sign"](request)
            return {"url": request.url, "headers": request.headers, "body": b64(request.body)}
        try:
            valid = known["verify"](request)
        except Exception as error:  # Each library has its own way to say no.
            return {"valid": False, "why": f"{type(error).__name__}: {error}"[:300]}
        return {"valid": valid is None or valid is True, "why": str(valid)[:300]}


for line in sys.stdin:
    try:
        told = answer(json.loads(line))
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"[:300]}
    answers.write(json.dumps(told) + "\n")
    answers.flush()
