"""Go programs that serve and ask as programs do everywhere: run by command line, recorded, and replayed."""

from tests.e2e.cli import BUILT, Cli, Done


def run_and_replay(cli: Cli, name: str, *args: str) -> Done:
    """Runs a program to its end, replays it, and returns the run."""
    process, done = cli.run(BUILT / "net" / f"{name}.wasm", *args)
    again = cli.replay(process)
    assert (again.stdout, again.stderr) == (done.stdout, done.stderr)
    return done


def test_http(cli: Cli):
    """HTTP/1.1 and cleartext HTTP/2, server and client in one process, with no grant."""
    done = run_and_replay(cli, "http")
    assert done.out.endswith("ok HTTP/2.0 canceled\nfailed: 0\n")
