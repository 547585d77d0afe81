//! `sock_getaddrinfo`: names and services. What needs no network is answered here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::event::{PollFd, PollFlags, poll};

use crate::abi::socket as abi;
use crate::host::arguments::Arguments;
use crate::host::streams::killed;
use crate::host::{Host, Outcome, Stop};
use crate::memory::Region;
use crate::network::{Answer, Resolve, Ticket};
use crate::{Errno, KillSwitch, Memory};

/// Names and services longer than this are none, bytes.
pub(super) const NAME_BYTES_MAX: u32 = 256;

/// Services that programs ask for by name. Everything else is a number, as the table of the machine is no business of
/// a guest.
const SERVICES: [(&str, u16); 20] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("pop3", 110),
    ("ntp", 123),
    ("imap", 143),
    ("snmp", 161),
    ("ldap", 389),
    ("https", 443),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("mysql", 3306),
    ("postgresql", 5432),
    ("amqp", 5672),
    ("redis", 6379),
];

/// What the guest asks for.
#[derive(Debug)]
struct Hints {
    flags: u16,
    ipv4: bool,
    ipv6: bool,
    /// Socket types with their protocols.
    types: Vec<(u32, u32)>,
}

impl Hints {
    fn read(memory: &mut Memory<'_>, ptr: u32) -> Result<Self, Errno> {
        if ptr == 0 {
            return Hints::new(0, 0, 0, 0);
        }
        let raw = memory.sent(ptr, abi::ADDRINFO_BYTES)?;
        Hints::new(u16::from_le_bytes([raw[0], raw[1]]), u32::from(raw[2]), u32::from(raw[3]), u32::from(raw[4]))
    }

    fn new(flags: u16, family: u32, socktype: u32, protocol: u32) -> Result<Self, Errno> {
        if flags >> abi::AI_NAMES.len() != 0 {
            return Err(Errno::Inval);
        }
        let (ipv4, ipv6) = match family {
            0 => (true, true),
            abi::FAMILY_INET4 => (true, false),
            abi::FAMILY_INET6 => (false, true),
            _ => return Err(Errno::Afnosupport),
        };
        let all = [(abi::TYPE_STREAM, abi::PROTOCOL_TCP), (abi::TYPE_DGRAM, abi::PROTOCOL_UDP)];
        let fits = |(of, with): &(u32, u32)| {
            (socktype == abi::TYPE_ANY || socktype == *of) && (protocol == 0 || protocol == *with)
        };
        let types: Vec<_> = all.into_iter().filter(fits).collect();
        if types.is_empty() { Err(Errno::Inval) } else { Ok(Hints { flags, ipv4, ipv6, types }) }
    }

    fn wants(&self, ip: &IpAddr) -> bool {
        if ip.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// One place for an answer, in the guest's memory.
#[derive(Debug)]
struct Slot {
    info: u32,
    sockaddr: u32,
    data: Region,
    canonical: u32,
    canonical_len: u32,
    next: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The chain of places behind the pointer at `ptr`, all checked, at most `count`.
fn slots(memory: &mut Memory<'_>, ptr: u32, count: u32) -> Result<Vec<Slot>, Errno> {
    let mut slots = Vec::new();
    let mut info = u32_at(memory.sent(ptr, 4)?, 0);
    while info != 0 && slots.len() < count.min(abi::ADDRESSES_MAX) as usize {
        let raw = memory.sent(info, abi::ADDRINFO_BYTES)?;
        let (sockaddr, canonical, canonical_len, next) =
            (u32_at(raw, 12), u32_at(raw, 16), u32_at(raw, 20), u32_at(raw, 24));
        let raw = memory.sent(sockaddr, abi::SOCKADDR_BYTES)?;
        let data = Region { ptr: u32_at(raw, 8), len: u32_at(raw, 4) };
        memory.check(data.ptr, data.len)?;
        slots.push(Slot { info, sockaddr, data, canonical, canonical_len, next });
        info = next;
    }
    Ok(slots)
}

impl Slot {
    /// Whether the place has room for the address: port and IP address.
    fn fits(&self, ip: &IpAddr) -> bool {
        self.data.len >= if ip.is_ipv4() { 2 + abi::IPV4_BYTES } else { 2 + abi::IPV6_BYTES }
    }

    fn write(&self, memory: &mut Memory<'_>, flags: u16, kind: (u32, u32), to: SocketAddr) -> Result<(), Errno> {
        let (family, ip) = match to.ip() {
            IpAddr::V4(ip) => (abi::FAMILY_INET4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (abi::FAMILY_INET6, ip.octets().to_vec()),
        };
        // As in a `sockaddr` behind its family: the port in network order, then the address.
        let data = [to.port().to_be_bytes().as_slice(), &ip].concat();
        memory.write(self.data.ptr, &data)?;
        let words = [family, data.len() as u32, self.data.ptr];
        memory.write(self.sockaddr, &words.map(u32::to_le_bytes).concat())?;
        let mut info = Vec::with_capacity(abi::ADDRINFO_BYTES as usize);
        info.extend_from_slice(&flags.to_le_bytes());
        info.extend_from_slice(&[family as u8, kind.0 as u8]);
        let words = [kind.1, abi::SOCKADDR_BYTES, self.sockaddr, self.canonical, self.canonical_len, self.next];
        info.extend_from_slice(&words.map(u32::to_le_bytes).concat());
        memory.write(self.info, &info)
    }
}

/// Text of a guest that may end with a NUL, and may not be there at all.
fn text(memory: &mut Memory<'_>, ptr: u32, len: u32) -> Result<String, Errno> {
    if len > NAME_BYTES_MAX {
        memory.check(ptr, len)?;
        return Err(Errno::Nametoolong);
    }
    let bytes = memory.sent(ptr, len)?;
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(std::str::from_utf8(bytes).map_err(|_| Errno::Ilseq)?.to_owned())
}

pub(super) fn port(service: &str, flags: u16) -> Result<u16, Errno> {
    if service.is_empty() {
        return Ok(0);
    }
    match service.parse() {
        Ok(port) => Ok(port),
        Err(_) if flags & abi::AI_NUMERICSERV != 0 => Err(Errno::Noent),
        Err(_) => SERVICES.iter().find(|(name, _)| *name == service).map(|(_, port)| *port).ok_or(Errno::Noent),
    }
}

/// What a name means without asking anybody; `None` if somebody must be asked.
pub(super) fn known(node: &str, flags: u16) -> Option<Vec<IpAddr>> {
    let loopback = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if node.is_empty() && flags & abi::AI_PASSIVE != 0 {
        return Some(vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
    }
    let name = node.strip_suffix('.').unwrap_or(node).to_ascii_lowercase();
    let is_name = flags & abi::AI_NUMERICHOST == 0;
    // RFC 6761: these never leave the machine.
    if name.is_empty() || is_name && (name == "localhost" || name.ends_with(".localhost")) {
        return Some(loopback());
    }
    node.parse().ok().map(|ip| vec![ip])
}

impl Host {
    pub(in crate::host) fn sock_getaddrinfo(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(7), 4)?;
        let node = text(memory, args.u32(0), args.u32(1))?;
        let service = text(memory, args.u32(2), args.u32(3))?;
        let hints = Hints::read(memory, args.u32(4))?;
        let slots = slots(memory, args.u32(5), args.u32(6))?;
        if slots.is_empty() {
            return Err(Errno::Inval.into());
        }
        if node.is_empty() && service.is_empty() {
            return Err(Errno::Noent.into());
        }
        let port = port(&service, hints.flags)?;
        let addresses = match known(&node, hints.flags) {
            Some(addresses) => addresses,
            None if hints.flags & abi::AI_NUMERICHOST != 0 => return Err(Errno::Noent.into()),
            None => self.resolve(node, &hints)?,
        };
        let wanted = addresses.iter().filter(|ip| hints.wants(ip));
        let answers: Vec<_> = wanted.flat_map(|ip| hints.types.iter().map(move |kind| (*ip, *kind))).collect();
        if answers.is_empty() {
            return Err(Errno::Noent.into());
        }
        let mut written = 0;
        let mut slots = slots.iter();
        for (ip, kind) in answers {
            // The chain is filled from its beginning, so that an address that doesn't fit is left out.
            if !slots.as_slice().first().is_some_and(|slot| slot.fits(&ip)) {
                continue;
            }
            if let Some(slot) = slots.next() {
                slot.write(memory, hints.flags, kind, SocketAddr::new(ip, port))?;
                written += 1;
            }
        }
        memory.write_u32(args.u32(7), written)?;
        Ok(())
    }

    fn resolve(&mut self, name: String, hints: &Hints) -> Result<Vec<IpAddr>, Stop> {
        let request = Resolve { name, ipv4: hints.ipv4, ipv6: hints.ipv6 };
        let ticket = self.net.network().resolve(request);
        loop {
            match ticket.poll() {
                Some(Ok(Answer::Addresses(addresses))) => return Ok(addresses),
                Some(Ok(_)) => return Err(Errno::Proto.into()),
                Some(Err(errno)) => return Err(errno.into()),
                None => wait(&ticket, &self.kill)?,
            }
        }
    }
}

/// Waits for an answer, or for the guest's end.
fn wait(ticket: &Ticket, kill: &KillSwitch) -> Result<(), Stop> {
    let event = kill.end_descriptor();
    let mut fds = vec![PollFd::new(&event, PollFlags::IN)];
    fds.extend(ticket.descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => killed(kill),
        Err(error) => Err(error.into()),
    }
}
