"""The text of policies."""

from __future__ import annotations

import contextlib
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecraftd.errors import PolicyError
from timecraftd.network.policy import Policy, Rule, Target
from timecraftd.network.rules import (
    FILE_BYTES_MAX,
    PORT_RANGES_MAX,
    RULE_CHARACTERS_MAX,
    RULES_MAX,
    format_rule,
    parse_file,
    parse_policy,
    parse_rule,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("example.com", "allow example.com"),
        ("  ALLOW   out  Example.COM.:443 ", "allow example.com:443"),
        ("deny tcp *.Example.com:80,443", "deny tcp *.example.com:80,443"),
        ("udp *:53", "allow udp *:53"),
        ("*:*", "allow *"),
        ("10.0.0.0/8:8000-8999,22", "allow 10.0.0.0/8:22,8000-8999"),
        ("10.1.2.3:80,81,82-90", "allow 10.1.2.3:80-90"),
        ("10.1.2.3/32", "allow 10.1.2.3"),
        ("::1", "allow ::1"),
        ("[::1]", "allow ::1"),
        ("[2001:DB8::/32]:443", "allow [2001:db8::/32]:443"),
        ("2001:db8::1:443", "allow 2001:db8::1:443"),  # an address: ports need brackets
        ("::ffff:10.0.0.0/104", "allow 10.0.0.0/8"),
        ("[::ffff:127.0.0.1]:1", "allow 127.0.0.1:1"),
        ("host:8080", "allow host:8080"),
        ("host.internal:8080", "allow host:8080"),
        ("host.", "allow host."),  # a name like any other
        ("guest.:80", "allow guest.:80"),
        ("guest:Web:80", "allow guest:web:80"),
        ("guest:*", "allow guest:*"),
        ("web.guest.internal:80", "allow guest:web:80"),
        ("*.guest.internal", "allow guest:*"),
        ("deny in 192.0.2.0/24:80", "deny in 192.0.2.0/24:80"),
        ("deny in guest:web", "deny in guest:web"),
        ("all", "allow *"),
        ("none", "deny *"),
        ("bücher.example", "allow xn--bcher-kva.example"),
        ("BÜCHER。example", "allow xn--bcher-kva.example"),
        ("*.xn--bcher-kva.example", "allow *.xn--bcher-kva.example"),
        ("_srv.example.com", "allow _srv.example.com"),
    ],
)
def test_rules_have_one_form(text, canonical):
    rule = parse_rule(text)
    assert format_rule(rule) == canonical
    assert parse_rule(canonical) == rule


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("allow tcp", "names no target"),
        ("allow example.com 443", "ports follow a colon: example.com:443"),
        ("allow example.com tcp", "'tcp' is too much after the target"),
        ("https://example.com/", "is a URL"),
        ("example.com:", "isn't a port"),
        ("example.com:0", "'0' isn't a port"),
        ("example.com:80-70", "'80-70' isn't a port"),
        ("example.com:http", "'http' isn't a port"),
        ("example.com:65536", "isn't a port"),
        ("example.com:٤٤٣", "isn't a port"),
        ("10.0.0.1/8", "bits set beyond its prefix; write 10.0.0.0/8, or 10.0.0.1 alone"),
        ("10.0.0", "isn't an IP address or a CIDR"),
        ("010.0.0.1", "isn't an IP address"),
        ("2130706433", "isn't an IP address"),
        ("0x7f.1", "ends in a number"),
        ("example.1", "ends in a number"),
        ("fe80::1%eth0", "has a zone"),
        ("[::1", "isn't \\[ADDRESS\\]:PORTS"),
        ("[::1]80", "isn't \\[ADDRESS\\]:PORTS"),
        ("::1::", "isn't an IP address"),
        ("ex*.com", "a star within"),
        ("a.*.com", "a star within"),
        ("*.*.com", "a star within"),
        ("*example.com", "a star within"),
        ("*.", "the label ''"),
        ("a..b", "the label ''"),
        ("-", None),
        ("a b", "too much"),
        ("exa$mple.com", "isn't 1 to 63 letters"),
        ("a" * 64 + ".com", "isn't 1 to 63 letters"),
        (("a" * 60 + ".") * 5, "longer than 253"),
        ("straße.de", "write its ASCII form"),
        ("localhost:80", "is the guest itself; for the host's loopback write `host`"),
        ("guest::80", "can't be a guest's name"),
        ("guest:a/b", "can't be a guest's name"),
        ("in example.com", "has an address but no name"),
        ("in *.example.com", "has an address but no name"),
        ("x:" + ",".join(str(port) for port in range(1, 3 * PORT_RANGES_MAX, 2)), "ranges of ports"),
        ("x" * (RULE_CHARACTERS_MAX + 1), "longer than"),
    ],
)
def test_wrong_rules(text, says):
    if says is None:
        assert parse_rule(text).target.name == text
        return
    with pytest.raises(PolicyError, match=says) as refused:
        parse_policy([text])
    assert refused.value.next_step


def test_arguments_are_rules_words_and_files_in_their_order():
    files = {"policy.toml": b'rules = ["deny 10.0.0.0/8", "all"]'}
    policy = parse_policy(["example.com:443", "policy.toml", "none"], files.__getitem__)
    assert [format_rule(rule) for rule in policy.rules] == [
        "allow example.com:443", "deny 10.0.0.0/8", "allow *", "deny *",
    ]  # fmt: skip
    assert [rule.origin for rule in policy.rules] == ["--net", "policy.toml:1", "policy.toml:1", "--net"]
    assert parse_policy([]) == Policy()


FILE = """\
# comment with "rules = [" in it
rules = [
  "example.com:443", # first
  'deny  *.evil.example', "udp *:53",

  "allow 10.0.0.0/8:22",
]
"""


def test_files_tell_where_each_rule_stands():
    rules = parse_file("p.toml", FILE.encode())
    assert [(format_rule(rule), rule.origin) for rule in rules] == [
        ("allow example.com:443", "p.toml:3"),
        ("deny *.evil.example", "p.toml:4"),
        ("allow udp *:53", "p.toml:4"),
        ("allow 10.0.0.0/8:22", "p.toml:6"),
    ]
    assert parse_file("p.toml", FILE.replace("\n", "\r\n").encode()) == rules
    assert parse_file("p.toml", b"") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules = [", "p.toml:1:10: "),
        ("rules = [\n  'a',\n  b\n]", "p.toml:3:3: Invalid value"),
        ("\nrule = []", "p.toml:2:1: unknown key 'rule'"),
        ("rules = []\n[table]\nx = 1", "p.toml:2:2: unknown key 'table'"),
        ("rules = 3", "p.toml:1:1: `rules` isn't an array"),
        ("rules = 'allow *'", "p.toml:1:1: `rules` isn't an array"),
        ("rules = [\n 'allow *',\n 3]", "p.toml:3:2: 3 isn't a text"),
        ("rules = [['allow *']]", "p.toml:1:10: \\['allow \\*'\\] isn't a text"),
        ("rules = [\n  'allow *',\n  'deny tcp 10.0.0.0/33',\n]", "p.toml:3:13: '10.0.0.0/33' isn't an IP address"),
        ("rules = ['allow example.com:80,x']", "p.toml:1:32: 'x' isn't a port"),
        ("rules = ['allow']", "p.toml:1:16: names no target"),
        ("rules = [ '''a b''' ]", "p.toml:1:16: 'b' is too much"),
    ],
)
def test_wrong_files_are_told_by_line_and_column(text, says):
    with pytest.raises(PolicyError, match=says) as refused:
        parse_file("p.toml", text.encode())
    assert refused.value.next_step


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PolicyError, match=r"p\.toml: No such file"):
        parse_policy([str(tmp_path / "p.toml")])
    with pytest.raises(PolicyError, match=r"p\.toml:2:3: isn't UTF-8"):
        parse_file("p.toml", b"# \xc3\xa4\n# \xff")
    (tmp_path / "p.toml").write_text("#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(PolicyError, match="is longer than"):
        parse_policy([str(tmp_path / "p.toml")])


def test_the_number_of_rules_is_bounded():
    assert len(parse_policy(["all"] * RULES_MAX).rules) == RULES_MAX
    with pytest.raises(PolicyError, match="are more than"):
        parse_policy(["all"] * (RULES_MAX + 1))


LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z_])?", fullmatch=True).filter(lambda label: not label.isdigit())
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join).filter(
    lambda name: not name.endswith(("localhost", ".internal")) and not name.rpartition(".")[2].startswith("0x")
)  # fmt: skip
NETWORKS = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(int), st.integers(0, 32)),
    st.tuples(st.ip_addresses(v=6).map(int).filter(lambda value: value >> 32 != 0xFFFF), st.integers(97, 128)),
).map(lambda pair: ip_network(pair, strict=False))
PORTS = st.lists(st.tuples(st.integers(1, 65535), st.integers(0, 100)), max_size=4).map(
    lambda pairs: ",".join(f"{first}-{min(first + more, 65535)}" for first, more in pairs)
)
TARGETS = st.one_of(
    st.just(Target("any")),
    st.just(Target("host")),
    NETWORKS.map(lambda network: Target("network", network=network)),
    st.builds(Target, st.sampled_from(["name", "below"]), NAMES),
    st.builds(Target, st.just("guest"), st.from_regex(r"([a-z0-9][a-z0-9_.-]{0,20})?", fullmatch=True)),
)


@given(st.sampled_from(["allow", "deny"]), st.sampled_from([None, "tcp", "udp"]), TARGETS, PORTS)
def test_formatted_rules_parse_to_the_same(verdict, transport, target, ports):
    ranges = parse_rule(f"*:{ports or '*'}").ports
    for direction in ["out"] if target.kind in ("name", "below") else ["out", "in"]:
        rule = Rule(verdict, direction, transport, target, ranges)
        assert parse_rule(format_rule(rule)) == rule


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_policy_error(text):
    try:
        policy = parse_policy([text], lambda _: text.encode("utf-8", "surrogatepass"))
    except PolicyError:
        return
    assert all(parse_rule(format_rule(rule)) == rule for rule in policy.rules)


@given(st.text(alphabet="rules=[]\"'\\#,\n {}x*", max_size=40))
def test_any_file_is_a_policy_or_a_policy_error(text):
    with contextlib.suppress(PolicyError):
        parse_file("p.toml", f"rules = [{text}]".encode())
