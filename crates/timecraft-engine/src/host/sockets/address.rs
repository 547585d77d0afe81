//! Socket addresses as guests write and read them.
//!
//! A guest hands over a pointer to `{buf, len}`. Behind it is an IP address alone (4 or 16 bytes: the first version of
//! the ABI), or 128 bytes that begin with the address family (the second). The port is an argument of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::abi::socket as abi;
use crate::network::Address;
use crate::{Errno, Memory};

/// Bytes of the family that begins an address of the second version.
const TAG_BYTES: usize = 2;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A buffer as the guest describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    ptr: u32,
    len: u32,
}

/// Reads `{buf, len}`, noted as input.
pub(super) fn buffer(memory: &mut Memory<'_>, ptr: u32) -> Result<Buffer, Errno> {
    let raw = memory.sent(ptr, abi::BUFFER_BYTES)?;
    Ok(Buffer { ptr: u32_at(raw, 0), len: u32_at(raw, 4) })
}

/// Reads an address, noted as input.
pub(super) fn read(memory: &mut Memory<'_>, ptr: u32, port: u32) -> Result<Address, Errno> {
    let buffer = buffer(memory, ptr)?;
    if ![abi::IPV4_BYTES, abi::IPV6_BYTES, abi::TAGGED_BYTES].contains(&buffer.len) {
        return Err(Errno::Inval);
    }
    decode(memory.sent(buffer.ptr, buffer.len)?, port)
}

/// The address in a buffer of a length that there is.
pub(crate) fn decode(bytes: &[u8], port: u32) -> Result<Address, Errno> {
    let port = u16::try_from(port).map_err(|_| Errno::Inval);
    let inet = |ip: IpAddr| Ok(Address::Inet(SocketAddr::new(ip, port?)));
    let ipv4 = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    let ipv6 = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
    match bytes.len() as u32 {
        abi::IPV4_BYTES => inet(ipv4(bytes).map_err(|_| Errno::Inval)?),
        abi::IPV6_BYTES => inet(ipv6(bytes).map_err(|_| Errno::Inval)?),
        abi::TAGGED_BYTES => {
            let rest = &bytes[TAG_BYTES..];
            match u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) {
                abi::FAMILY_INET4 => inet(ipv4(&rest[..4]).map_err(|_| Errno::Inval)?),
                abi::FAMILY_INET6 => inet(ipv6(&rest[..16]).map_err(|_| Errno::Inval)?),
                abi::FAMILY_UNIX => {
                    let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
                    Ok(Address::Unix(name.to_vec()))
                }
                _ => Err(Errno::Afnosupport),
            }
        }
        _ => Err(Errno::Inval),
    }
}

/// Versions of the ABI, as far as they concern addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// An address in the form that fits the guest's buffer.
fn encode(address: &Address, version: Version, room: u32) -> Result<Vec<u8>, Errno> {
    let is_tagged = room == abi::TAGGED_BYTES;
    if version == Version::V2 && !is_tagged {
        return Err(Errno::Inval);
    }
    let tagged = |family: u32, rest: &[u8]| {
        let tag: &[u8] = if is_tagged { &(family as u16).to_le_bytes() } else { &[] };
        [tag, rest].concat()
    };
    let bytes = match address {
        Address::Inet(SocketAddr::V4(inet)) => tagged(abi::FAMILY_INET4, &inet.ip().octets()),
        Address::Inet(SocketAddr::V6(inet)) => tagged(abi::FAMILY_INET6, &inet.ip().octets()),
        Address::Unix(name) if is_tagged => tagged(abi::FAMILY_UNIX, &[name.as_slice(), &[0]].concat()),
        Address::Unix(_) => return Err(Errno::Inval),
    };
    if bytes.len() <= room as usize { Ok(bytes) } else { Err(Errno::Inval) }
}

impl Buffer {
    /// Fails unless an address can be written: to be asked before any effect.
    pub fn check(self, memory: &Memory<'_>, version: Version) -> Result<(), Errno> {
        let lengths: &[u32] = match version {
            Version::V1 => &[abi::IPV4_BYTES, abi::IPV6_BYTES, abi::TAGGED_BYTES],
            Version::V2 => &[abi::TAGGED_BYTES],
        };
        if !lengths.contains(&self.len) {
            return Err(Errno::Inval);
        }
        memory.check(self.ptr, self.len)
    }

    /// Whether it has room for an IPv4 address and no more.
    pub fn is_ipv4(self) -> bool {
        self.len == abi::IPV4_BYTES
    }

    /// Writes an address.
    pub fn write(self, memory: &mut Memory<'_>, address: &Address, version: Version) -> Result<(), Errno> {
        memory.write(self.ptr, &encode(address, version, self.len)?)
    }
}

/// The number that the first version has for a family.
pub(super) fn family_v1(address: &Address) -> u32 {
    match address {
        Address::Inet(SocketAddr::V4(_)) => 4,
        Address::Inet(SocketAddr::V6(_)) => 6,
        Address::Unix(_) => 0,
    }
}
