"""`timecraftd token`: make a bearer token for clients of a node."""

from __future__ import annotations

import argparse
import secrets
import sys

from timecraftd.cli.context import Context, tell
from timecraftd.cli.parser import positive_duration_ns

ROLES = ("viewer", "runner", "operator")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `token`."""
    parser.description = (
        "Makes a bearer token, prints it, and adds its hash to the node's identities file. The token itself is kept "
        "nowhere. The daemon knows it after a reload (SIGHUP, `systemctl reload timecraftd`). A name may have several "
        "tokens: to rotate one, make another, and remove the old one's entry when nobody uses it any more."
    )
    parser.add_argument("name", metavar="NAME", help="whose it is, as logs and owners show it")
    parser.add_argument("--role", choices=ROLES, required=True, help="what it may do")
    parser.add_argument(
        "--expires", metavar="DURATION", type=positive_duration_ns, help="how long it is good, such as 90d (for ever)"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Makes it."""
    import os
    import time

    from timecraftd.api.access import add_token, role_of

    config = context.config
    path = config.node.identities_file or os.path.join(config.home, "identities.toml")
    token = f"tc_{secrets.token_urlsafe(32)}"
    expires_s = None if args.expires is None else time.time() + args.expires / 1e9
    add_token(path, args.name, token, role_of(args.role), expires_s)
    tell(f"added to {path}; it is good once the daemon has been told to reload")
    sys.stdout.write(f"{token}\n")
    return 0
