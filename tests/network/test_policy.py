"""What policies decide."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from timecraftd.network.addresses import canonical, embedded, is_special_range, parse_address, parse_network, special
from timecraftd.network.policy import Peer
from timecraftd.network.rules import format_rule, parse_policy


def peer(text="192.0.2.1", port=443, transport="tcp", *names, **more):
    return Peer(parse_address(text), port, transport, frozenset(names), **more)


def decide(rules, to, direction="out"):
    """(allowed, the rule that says so)."""
    decision = parse_policy(rules).decide(direction, to)
    return decision.allowed, decision.rule and format_rule(decision.rule)


@pytest.mark.parametrize(
    ("rules", "to", "allowed"),
    [
        ([], peer(), False),
        (["none"], peer(), False),
        (["all"], peer(), True),
        (["all"], peer("2001:db8::1"), True),
        (["all"], peer("10.0.0.1"), True),
        # transports and ports
        (["udp *"], peer(), False),
        (["udp *"], peer("192.0.2.1", 53, "udp"), True),
        (["*:443"], peer(), True),
        (["*:80,8000-8999"], peer(), False),
        (["*:80,8000-8999"], peer("192.0.2.1", 8000), True),
        (["*:80,8000-8999"], peer("192.0.2.1", 8999), True),
        (["*:80,8000-8999"], peer("192.0.2.1", 9000), False),
        # ranges
        (["192.0.2.0/24"], peer(), True),
        (["192.0.2.1"], peer(), True),
        (["192.0.3.0/24"], peer(), False),
        (["0.0.0.0/0"], peer("2001:db8::1"), False),
        (["192.0.2.0/24"], peer("::ffff:192.0.2.1"), True),
        (["::ffff:192.0.2.0/120"], peer(), True),
        # the first that matches
        (["deny 192.0.2.1", "all"], peer(), False),
        (["deny 192.0.2.1", "all"], peer("192.0.2.2"), True),
        (["all", "deny 192.0.2.1"], peer(), True),
        (["deny udp *", "all"], peer(), True),
        (["deny *:25", "all"], peer("192.0.2.1", 25), False),
        (["deny in *", "all"], peer(), True),
        (["in *"], peer(), False),
        # names
        (["example.com"], peer("192.0.2.1", 443, "tcp", "example.com"), True),
        (["example.com"], peer(), False),
        (["example.com"], peer("192.0.2.1", 443, "tcp", "www.example.com"), False),
        (["*.example.com"], peer("192.0.2.1", 443, "tcp", "www.example.com"), True),
        (["*.example.com"], peer("192.0.2.1", 443, "tcp", "a.b.example.com"), True),
        (["*.example.com"], peer("192.0.2.1", 443, "tcp", "example.com"), False),
        (["*.example.com"], peer("192.0.2.1", 443, "tcp", "evilexample.com"), False),
        (["*.example.com"], peer("192.0.2.1", 443, "tcp", "example.com.evil.org"), False),
        (["deny evil.org", "all"], peer("192.0.2.1", 443, "tcp", "evil.org"), False),
        (["deny evil.org", "all"], peer("192.0.2.1", 443, "tcp", "good.org", "evil.org"), False),
        (["good.org", "deny evil.org"], peer("192.0.2.1", 443, "tcp", "good.org", "evil.org"), True),
        # the host's loopback
        (["all"], peer("127.0.0.1", host=True), False),
        (["host"], peer("127.0.0.1", host=True), True),
        (["host:443"], peer("127.0.0.1", 80, host=True), False),
        (["127.0.0.1"], peer("127.0.0.1", host=True), True),
        (["*.internal", "host.example"], peer("127.0.0.1", host=True), False),
        (["deny *", "host"], peer("127.0.0.1", host=True), False),
        # other guests
        (["all", "10.0.0.0/8", "host"], peer("10.86.0.2", guest="web"), False),
        (["guest:web"], peer("10.86.0.2", guest="web"), True),
        (["guest:Web"], peer("10.86.0.2", guest="web"), True),
        (["guest:db"], peer("10.86.0.2", guest="web"), False),
        (["guest:*"], peer("10.86.0.2", guest="web"), True),
        (["guest:*"], peer("10.86.0.2", guest=""), True),
        (["guest:*"], peer("10.86.0.2"), False),
        (["deny 10.0.0.0/8", "guest:*"], peer("10.86.0.2", guest="web"), False),
        (["deny *", "guest:*"], peer("10.86.0.2", guest="web"), False),
    ],
)
def test_what_goes_out(rules, to, allowed):
    assert decide(rules, to)[0] is allowed


@pytest.mark.parametrize(
    ("rules", "of", "allowed"),
    [
        ([], peer(port=80), True),
        (["none"], peer(port=80), True),
        (["deny in *"], peer(port=80), False),
        (["deny in *:81"], peer(port=80), True),
        (["in 192.0.2.0/24", "deny in *"], peer(port=80), True),
        (["in 192.0.2.0/24", "deny in *"], peer("192.0.3.1", port=80), False),
        (["in host", "deny in *"], peer("127.0.0.1", host=True), True),
        (["in *", "deny in *"], peer("127.0.0.1", host=True), True),
        (["in guest:web", "deny in *"], peer("10.86.0.2", guest="web"), True),
        (["in guest:web", "deny in *"], peer("10.86.0.2", guest="db"), False),
        (["deny in guest:*"], peer("10.86.0.2", guest="db"), False),
        (["deny in 10.86.0.0/16"], peer("10.86.0.2", guest="db"), False),
        (["deny in udp *"], peer(port=80), True),
    ],
)
def test_what_comes_in(rules, of, allowed):
    assert decide(rules, of, "in")[0] is allowed


SPECIAL = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1",
    "239.255.255.255", "255.255.255.255", "240.0.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "::", "::1", "fe80::1", "febf::1", "ff02::1", "fd00:ec2::254", "fd20:ce::254", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::169.254.169.254",
    "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::a9fe:a9fe", "64:ff9b::224.0.0.1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:1::",
]  # fmt: skip


@pytest.mark.parametrize("text", SPECIAL)
def test_special_addresses_need_a_rule_that_names_them(text):
    to = peer(text, 80, "tcp", "innocent.example")
    for rules in (["all"], ["0.0.0.0/0", "::/0"], ["innocent.example"], ["*.example"], ["host"], ["guest:*"], ["::/1"]):
        assert decide(rules, to) == (False, None), rules
    address = str(canonical(ip_address(text)))
    assert decide(["all", address], to) == (True, f"allow {address}")
    policy = parse_policy(["all"])
    assert "special" in policy.decide("out", to).reason
    assert not policy.decide_address(to).allowed
    assert parse_policy([address]).decide_address(to).allowed


def test_ranges_within_special_ones_name_them():
    for text, rule in [
        ("169.254.169.254", "169.254.0.0/16"),
        ("127.0.0.1", "127.0.0.0/9"),
        ("fe80::1", "fe80::/10"),
        ("64:ff9b::169.254.169.254", "64:ff9b::a9fe:0/112"),
        ("2002:a9fe:a9fe::1", "2002:a9fe::/32"),
    ]:
        assert decide([rule], peer(text)) == (True, f"allow {rule}")
    for text, rule in [("169.254.169.254", "169.254.0.0/15"), ("127.0.0.1", "126.0.0.0/7"), ("fe80::1", "fe80::/9")]:
        assert decide([rule], peer(text)) == (False, None)


def test_what_translators_carry_is_not_special_by_itself():
    assert decide(["all"], peer("64:ff9b::8.8.8.8"))[0]
    assert decide(["all"], peer("2002:808:808::1"))[0]
    assert decide(["deny 8.8.8.0/24", "all"], peer("64:ff9b::8.8.8.8")) == (False, "deny 8.8.8.0/24")
    assert decide(["deny 8.8.8.0/24", "all"], peer("2002:808:808::1")) == (False, "deny 8.8.8.0/24")
    assert decide(["8.8.8.0/24"], peer("64:ff9b::8.8.8.8"))[0] is False


@pytest.mark.parametrize(
    ("rules", "name", "allowed"),
    [
        ([], "example.com", False),
        (["none"], "example.com", False),
        (["all"], "example.com", True),
        (["10.0.0.0/8"], "example.com", True),
        (["udp 10.0.0.0/8:53"], "example.com", True),
        (["example.com:443"], "example.com", True),
        (["example.com"], "www.example.com", False),
        (["*.example.com"], "www.example.com", True),
        (["*.example.com"], "example.com", False),
        (["host", "guest:*"], "example.com", False),
        (["in *"], "example.com", False),
        (["deny example.com", "all"], "example.com", False),
        (["deny *.example.com", "all"], "www.example.com", False),
        (["deny example.com:80", "all"], "example.com", True),
        (["deny tcp example.com", "all"], "example.com", True),
        (["deny 10.0.0.0/8", "example.com"], "example.com", True),
        (["deny *", "example.com"], "example.com", False),
        (["example.com", "deny *"], "example.com", True),
    ],
)
def test_which_names_are_looked_up(rules, name, allowed):
    assert parse_policy(rules).decide_name(name).allowed is allowed


@pytest.mark.parametrize(
    ("rules", "text", "allowed"),
    [
        (["a.example"], "192.0.2.1", True),
        (["10.0.0.0/8"], "192.0.2.1", False),
        (["deny 192.0.2.0/24", "a.example"], "192.0.2.1", False),
        (["deny 192.0.2.0/24:80", "a.example"], "192.0.2.1", True),
        (["deny udp 192.0.2.0/24", "all"], "192.0.2.1", True),
        (["b.example"], "192.0.2.1", False),
    ],
)
def test_which_answers_are_passed_on(rules, text, allowed):
    assert parse_policy(rules).decide_address(peer(text, 0, "tcp", "a.example")).allowed is allowed


ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(0xFFFF << 32 | int(ip))),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(int(IPv6Address("64:ff9b::")) | int(ip))),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(0x2002 << 112 | int(ip) << 80)),
    st.sampled_from(SPECIAL).map(ip_address),
)
WIDE = st.sampled_from(
    ["*", "0.0.0.0/0", "::/0", "128.0.0.0/1", "a.example", "*.example", "host", "guest:*", "*:1-9999"]
)


@given(ADDRESSES, st.lists(WIDE, max_size=4), st.integers(1, 65535))
def test_no_wildcard_or_name_ever_admits_what_is_special(address, rules, port):
    to = Peer(canonical(address), port, "tcp", frozenset({"a.example"}))
    inner = embedded(to.address)
    policy = parse_policy(rules)
    if any(special(form) for form in (to.address, inner) if form is not None):
        assert not policy.decide("out", to).allowed
        assert not policy.decide_address(to).allowed
    if policy.decide("out", to).allowed:
        assert policy.decide_address(to).allowed


@given(ADDRESSES)
def test_the_table_of_special_addresses_agrees_with_the_standard_library(address):
    """Which knows fewer: neither clouds nor translators."""
    address = canonical(address)
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        assert special(address)
    if isinstance(address, IPv4Address):
        mapped = IPv6Address(0xFFFF << 32 | int(address))
        assert canonical(mapped) == address


@given(ADDRESSES, st.integers(0, 128))
def test_a_range_is_special_if_all_of_it_is(address, bits):
    address = canonical(address)
    network = parse_network(f"{address}/{min(bits, address.max_prefixlen)}", strict=False)
    assume(network.version == address.version)
    if is_special_range(network):
        assert all(special(each) for each in (network[0], network[-1], address))
    elif network.num_addresses == 1:
        assert not special(address)
