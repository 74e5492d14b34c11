"""An SMTP server for tests. It is told in one JSON object what it is like, prints its port, and then each mail it takes, and
each it refuses, as one JSON object a line. It ends when its input does.

  certificate, key   PEM files; without them it has no TLS
  implicit           TLS from the first byte instead of STARTTLS
  user, password     whom it takes mail from; without them from everybody
  refuse             so many mails are put off with 451 first
  unknown            an address that it says with 550 it does not have
"""

import asyncio
import base64
import json
import logging
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


def tell(what):
    print(json.dumps(what), flush=True)


class Keeper:
    def __init__(self, refuse, unknown):
        self.refuse = refuse
        self.unknown = unknown

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address == self.unknown:
            tell({"unknown": address})
            return "550 5.1.1 no such user\x1b[31m here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 known"

    async def handle_DATA(self, server, session, envelope):
        tls = server.transport.get_extra_info("cipher") is not None
        if self.refuse > 0:
            self.refuse -= 1
            tell({"refused": True, "tls": tls})
            return "451 4.3.2 come again later"
        tell({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": tls,
            "user": session.auth_data,
            "hello": session.host_name,
            "data": base64.b64encode(envelope.original_content).decode(),
        })
        return "250 2.0.0 taken"


def authenticator(asked):
    def check(server, session, envelope, mechanism, data):
        known = (data.login.decode(), data.password.decode()) == (asked["user"], asked["password"])
        if not known:
            tell({"wrong_password": True})
        return AuthResult(success=known, handled=False, auth_data=data.login.decode() if known else None)

    return check


async def main():
    # A client that breaks off is what some tests are about.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    asked = json.loads(sys.argv[1])
    context = None
    if "certificate" in asked:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(asked["certificate"], asked["key"])
    implicit = bool(asked.get("implicit"))
    keeper = Keeper(asked.get("refuse", 0), asked.get("unknown"))
    options = {"hostname": "localhost", "enable_SMTPUTF8": False}
    if context and not implicit:
        options |= {"tls_context": context, "require_starttls": True}
    if "user" in asked:
        options |= {"authenticator": authenticator(asked), "auth_required": True, "auth_require_tls": not implicit}
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(keeper, **options), "127.0.0.1", 0, ssl=context if implicit else None
    )
    tell({"port": server.sockets[0].getsockname()[1]})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main())
