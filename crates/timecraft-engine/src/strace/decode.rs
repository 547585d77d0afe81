//! Raw arguments and recorded bytes as values.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::CallView;
use super::names;
use super::value::{Duration, Seconds, Value};
use crate::abi::socket::OPTION_BYTES_MAX;
use crate::abi::{clockid, event, fdflags, filetype, fstflags, lookupflags, oflags, rights, size, socket, whence};
use crate::calls::{Kind, Param};
use crate::host::sockets::address;
use crate::network::Address;
use crate::{Call, Errno};

/// One parameter, decoded.
#[derive(Debug)]
pub(super) struct Decoded {
    pub name: &'static str,
    pub value: Value,
    /// Whether the value came from the host.
    pub is_result: bool,
    /// Shown to people alone: addresses, for want of what is there.
    pub is_address: bool,
}

/// All parameters of a call, in order.
pub(super) fn decode(view: &CallView<'_>) -> Vec<Decoded> {
    let mut decoded = Vec::new();
    let mut at = 0;
    for param in view.call.spec().params {
        let arg = |index: usize| view.args.get(at + index).copied().unwrap_or(0);
        Decoder { view, param }.decode(arg(0), arg(1), &mut decoded);
        at += param.kind.types().len();
    }
    decoded
}

struct Decoder<'a> {
    view: &'a CallView<'a>,
    param: &'static Param,
}

impl Decoder<'_> {
    fn decode(&self, arg: u64, second: u64, out: &mut Vec<Decoded>) {
        let name = self.param.name;
        let ptr = arg as u32;
        let input = |value| Decoded { name, value, is_result: false, is_address: false };
        match self.param.kind {
            Kind::Path => {
                out.push(input(self.path(ptr, second as u32)));
                out.extend(self.count_of_unknown(out, second));
            }
            Kind::IovecsOut => {
                out.push(input(self.gather(ptr, second as u32)));
                out.extend(self.count_of_unknown(out, second));
            }
            Kind::IovecsIn => {
                out.push(self.result(ptr, self.cell(ptr, second as u32)));
                out.extend(self.count_of_unknown(out, second));
            }
            Kind::Address => {
                out.push(input(self.address(ptr, second as u32)));
                if matches!(out.last(), Some(Decoded { value: Value::Pointer(_), .. })) {
                    let value = Value::Unsigned(second);
                    out.push(Decoded { name: "port", value, is_result: false, is_address: false });
                }
            }
            Kind::OptionValue => {
                let value = collect(self.view.sent, ptr, second as u32).map(|bytes| self.option(bytes));
                out.push(input(value.unwrap_or(Value::Pointer(ptr))));
                out.push(Decoded { name: "len", value: Value::Unsigned(second), is_result: false, is_address: false });
            }
            Kind::OutOption => {
                let bytes = collect(self.view.written, ptr, OPTION_BYTES_MAX).filter(|_| self.has_succeeded());
                out.push(self.result(ptr, bytes.map(|bytes| Value::cell(self.option(bytes)))));
                let is_number = second <= u64::from(OPTION_BYTES_MAX);
                let len = if is_number { Value::Unsigned(second) } else { Value::Pointer(second as u32) };
                out.push(Decoded { name: "len", value: len, is_result: false, is_address: false });
            }
            Kind::OutAddress => out.push(self.result(ptr, self.out_address(ptr))),
            Kind::Hints => out.push(input(self.hints(ptr))),
            Kind::OutAddresses => out.push(self.result(ptr, self.out_addresses(ptr))),
            Kind::Subscriptions => out.push(input(self.subscriptions(ptr))),
            Kind::Buffer => {
                out.push(self.result(ptr, self.buffer(ptr, second as u32)));
                out.push(Decoded { name: "len", value: Value::Unsigned(second), is_result: false, is_address: false });
            }
            kind if is_result(kind) => out.push(self.result(ptr, self.cell(ptr, second as u32))),
            _ => out.push(input(self.scalar(arg))),
        }
    }

    /// A result, or its address if the call has given none.
    fn result(&self, ptr: u32, value: Option<Value>) -> Decoded {
        let name = self.param.name;
        match value {
            Some(value) => Decoded { name, value, is_result: true, is_address: false },
            None => Decoded { name, value: Value::Pointer(ptr), is_result: true, is_address: true },
        }
    }

    /// The second argument of a parameter that has two, unless the value before it says it all.
    fn count_of_unknown(&self, decoded: &[Decoded], count: u64) -> Option<Decoded> {
        let name = if self.param.kind == Kind::Path { "len" } else { "count" };
        let is_unknown = matches!(decoded.last()?.value, Value::Pointer(_));
        is_unknown.then_some(Decoded { name, value: Value::Unsigned(count), is_result: true, is_address: true })
    }

    fn scalar(&self, arg: u64) -> Value {
        match self.param.kind {
            Kind::Fd => Value::Signed(i64::from(arg as u32 as i32)),
            Kind::I64 => Value::Signed(arg as i64),
            Kind::Time if self.param.name == "precision" || arg == 0 => Value::Unsigned(arg),
            Kind::Time => Value::Time(arg),
            Kind::Clock => name_of(&clockid::NAMES, arg),
            Kind::Whence => name_of(&whence::NAMES, arg),
            Kind::Advice => name_of(&names::ADVICE, arg),
            Kind::Signal => name_of(&names::SIGNALS, arg),
            Kind::OpenFlags => flags(&oflags::NAMES, arg),
            Kind::LookupFlags => flags(&lookupflags::NAMES, arg),
            Kind::FdFlags => flags(&fdflags::NAMES, arg),
            Kind::FstFlags => flags(&fstflags::NAMES, arg),
            Kind::Rights => rights_of(arg),
            Kind::Family => name_of(&socket::FAMILIES, arg),
            Kind::SocketType => name_of(&socket::TYPES, arg),
            Kind::OptionLevel => level(arg),
            Kind::OptionName => option_name(self.view.args.get(1).copied().unwrap_or(0), arg),
            Kind::SocketFlags if self.param.name == "how" => flags(&names::SHUTDOWN, arg),
            Kind::SocketFlags if self.param.name == "ri_flags" => flags(&names::RECV_FLAGS, arg),
            Kind::SocketFlags => flags(&[], arg),
            _ => Value::Unsigned(arg),
        }
    }

    fn path(&self, ptr: u32, len: u32) -> Value {
        match collect(self.view.sent, ptr, len) {
            Some(bytes) => Value::Bytes { bytes, total: len as usize },
            None => Value::Pointer(ptr),
        }
    }

    /// An address that the guest handed over.
    fn address(&self, ptr: u32, port: u32) -> Value {
        let bytes = self.described(ptr).and_then(|(ptr, len)| collect(self.view.sent, ptr, len));
        match bytes.and_then(|bytes| address::decode(&bytes, port).ok()) {
            Some(address) => Value::Symbol(Cow::Owned(address.to_string())),
            None => Value::Pointer(ptr),
        }
    }

    /// What a `{buf, len}` of the guest says.
    fn described(&self, ptr: u32) -> Option<(u32, u32)> {
        let buffer = collect(self.view.sent, ptr, socket::BUFFER_BYTES)?;
        (buffer.len() == socket::BUFFER_BYTES as usize).then(|| (u32_at(&buffer, 0), u32_at(&buffer, 4)))
    }

    /// An address that the host wrote; its port is a result of its own.
    fn out_address(&self, ptr: u32) -> Option<Value> {
        if !self.has_succeeded() {
            return None;
        }
        let (ptr, len) = self.described(ptr)?;
        let region = self.view.written.iter().rfind(|(at, _)| *at == ptr)?;
        let mut bytes = region.1[..region.1.len().min(len as usize)].to_vec();
        // What lies behind the address is not written.
        if len == socket::TAGGED_BYTES {
            bytes.resize(len as usize, 0);
        }
        let address = match address::decode(&bytes, 0).ok()? {
            Address::Inet(address) => address.ip().to_string(),
            unix @ Address::Unix(_) => unix.to_string(),
        };
        Some(Value::cell(Value::Symbol(Cow::Owned(address))))
    }

    /// The value of an option: a number where it is one.
    fn option(&self, bytes: Vec<u8>) -> Value {
        let arg = |index: usize| self.view.args.get(index).map_or(0, |arg| *arg as u32);
        let is_error = (arg(1), arg(2)) == (socket::LEVEL_SOCKET, socket::OPTION_ERROR);
        let number = bytes.as_slice().try_into().map(u32::from_le_bytes);
        match number {
            Ok(0) | Err(_) if is_error => Value::Unsigned(0),
            Ok(errno) if is_error => {
                let name = u16::try_from(errno).ok().and_then(Errno::from_raw);
                name.map_or(Value::Unsigned(u64::from(errno)), |errno| Value::symbol(errno.name()))
            }
            Ok(number) if arg(1) != socket::LEVEL_HOST => Value::Signed(i64::from(number as i32)),
            Ok(_) | Err(_) => {
                let total = bytes.len();
                Value::Bytes { bytes, total }
            }
        }
    }

    fn hints(&self, ptr: u32) -> Value {
        let bytes = collect(self.view.sent, ptr, socket::ADDRINFO_BYTES);
        let Some(bytes) = bytes.filter(|bytes| bytes.len() >= 8) else { return Value::Pointer(ptr) };
        Value::Struct(vec![
            ("flags", flags(&socket::AI_NAMES, u64::from(u16_at(&bytes, 0)))),
            ("family", name_of(&socket::FAMILIES, u64::from(bytes[2]))),
            ("socktype", name_of(&socket::TYPES, u64::from(bytes[3]))),
            ("protocol", name_of(&names::PROTOCOLS, u64::from(bytes[4]))),
        ])
    }

    /// The entries of the chain that the host has filled.
    fn out_addresses(&self, ptr: u32) -> Option<Value> {
        if !self.has_succeeded() {
            return None;
        }
        let written =
            |ptr: u32, len: u32| collect(self.view.written, ptr, len).filter(|bytes| bytes.len() == len as usize);
        let mut info = u32_at(&collect(self.view.sent, ptr, 4).filter(|bytes| bytes.len() == 4)?, 0);
        let count = u32_at(&written(*self.view.args.last()? as u32, 4)?, 0);
        let mut entries = Vec::new();
        for _ in 0..count.min(socket::ADDRESSES_MAX) {
            let Some(entry) = written(info, socket::ADDRINFO_BYTES) else { break };
            let Some(sockaddr) = written(u32_at(&entry, 12), socket::SOCKADDR_BYTES) else { break };
            let Some(data) = written(u32_at(&sockaddr, 8), u32_at(&sockaddr, 4)) else { break };
            let Some((port, ip)) = data.split_at_checked(2) else { break };
            let port = u32::from(u16::from_be_bytes([port[0], port[1]]));
            let Ok(address) = address::decode(ip, port) else { break };
            let kind = socket::TYPES.get(usize::from(entry[3])).unwrap_or(&"?");
            let fields =
                vec![("socktype", Value::symbol(kind)), ("address", Value::Symbol(Cow::Owned(address.to_string())))];
            entries.push(Value::Split { text: format!("{{{kind} {address}}}"), fields });
            info = u32_at(&entry, 24);
        }
        Some(Value::List(entries))
    }

    /// The iovec list of the call, if it was noted.
    fn iovecs(&self, ptr: u32, count: u32) -> Option<Vec<(u32, u32)>> {
        let list = collect(self.view.sent, ptr, count.checked_mul(size::IOVEC)?)?;
        Some(list.chunks_exact(size::IOVEC as usize).map(|iovec| (u32_at(iovec, 0), u32_at(iovec, 4))).collect())
    }

    fn gather(&self, ptr: u32, count: u32) -> Value {
        let Some(iovecs) = self.iovecs(ptr, count) else { return Value::Pointer(ptr) };
        let buffer = |(ptr, len)| buffer_of(collect(self.view.sent, ptr, len).unwrap_or_default(), len, len);
        Value::List(iovecs.into_iter().map(buffer).collect())
    }

    fn scatter(&self, ptr: u32, count: u32) -> Option<Value> {
        let mut buffers = Vec::new();
        let mut is_full = true;
        for (ptr, len) in self.iovecs(ptr, count)? {
            // Buffers fill in order: those behind one that isn't full have kept what the guest had there.
            let bytes = if is_full { collect(self.view.written, ptr, len).unwrap_or_default() } else { Vec::new() };
            is_full = bytes.len() == len as usize;
            let filled = bytes.len() as u32;
            buffers.push(match self.view.reference {
                Some(reference) if buffers.is_empty() => {
                    let content = Box::new(Value::Symbol(Cow::Owned(reference.to_string())));
                    Value::Buffer { content, capacity: len }
                }
                _ => buffer_of(bytes, filled, len),
            });
        }
        Some(Value::List(buffers))
    }

    fn subscriptions(&self, ptr: u32) -> Value {
        let count = self.view.args.get(2).map_or(0, |count| *count as u32);
        let bytes = count.checked_mul(event::SUBSCRIPTION_BYTES).and_then(|len| collect(self.view.sent, ptr, len));
        match bytes {
            None => Value::Pointer(ptr),
            Some(bytes) => {
                Value::List(bytes.chunks_exact(event::SUBSCRIPTION_BYTES as usize).map(subscription).collect())
            }
        }
    }

    /// What the host has put into a buffer of its own format.
    fn buffer(&self, ptr: u32, len: u32) -> Option<Value> {
        if !self.has_succeeded() {
            return None;
        }
        let bytes = collect(self.view.written, ptr, len).unwrap_or_default();
        if self.view.call == Call::FdReaddir {
            return Some(Value::List(dirents(&bytes)));
        }
        let total = bytes.len();
        Some(Value::Bytes { bytes, total })
    }

    /// The content of a result cell, decoded; `None` if the call hasn't filled it.
    fn cell(&self, ptr: u32, second: u32) -> Option<Value> {
        if !self.has_succeeded() {
            return None;
        }
        let read = |len: u32| collect(self.view.written, ptr, len).filter(|bytes| bytes.len() == len as usize);
        Some(match self.param.kind {
            Kind::IovecsIn => return self.scatter(ptr, second),
            Kind::OutU32 => Value::cell(Value::Unsigned(u64::from(u32_at(&read(4)?, 0)))),
            Kind::OutFd => Value::cell(Value::Signed(i64::from(u32_at(&read(4)?, 0) as i32))),
            Kind::OutU64 => Value::cell(Value::Unsigned(u64_at(&read(8)?, 0))),
            Kind::OutTime => Value::cell(Value::Time(u64_at(&read(8)?, 0))),
            Kind::OutFlags => Value::cell(flags(&names::RECV_RESULTS, u64::from(u16_at(&read(2)?, 0)))),
            Kind::OutFdstat => fdstat(&read(size::FDSTAT)?),
            Kind::OutFilestat => filestat(&read(size::FILESTAT)?),
            Kind::OutPrestat => prestat(&read(size::PRESTAT)?),
            Kind::OutEvents => self.events(ptr)?,
            Kind::OutStrings => self.strings(ptr),
            _ => return None,
        })
    }

    /// Events, as many as were written.
    fn events(&self, ptr: u32) -> Option<Value> {
        let count = self.view.args.get(2).map_or(0, |count| *count as u32);
        let bytes = collect(self.view.written, ptr, count.checked_mul(event::EVENT_BYTES)?)?;
        Some(Value::List(bytes.chunks_exact(event::EVENT_BYTES as usize).map(event_of).collect()))
    }

    /// Strings through the array of pointers that was written.
    fn strings(&self, ptr: u32) -> Value {
        let Some((_, pointers)) = self.view.written.iter().find(|(at, _)| *at == ptr) else {
            // No strings at all leave nothing to write.
            return Value::List(Vec::new());
        };
        let string = |pointer: &[u8]| {
            let mut bytes = collect(self.view.written, u32_at(pointer, 0), u32::MAX).unwrap_or_default();
            bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
            let total = bytes.len();
            Value::Bytes { bytes, total }
        };
        Value::List(pointers.chunks_exact(4).map(string).collect())
    }

    fn has_succeeded(&self) -> bool {
        self.view.outcome == Some(Errno::Success)
    }
}

/// Whether the host fills what the parameter points to.
fn is_result(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::IovecsIn
            | Kind::OutU32
            | Kind::OutU64
            | Kind::OutFd
            | Kind::OutTime
            | Kind::OutFdstat
            | Kind::OutFilestat
            | Kind::OutPrestat
            | Kind::OutFlags
            | Kind::OutStrings
            | Kind::OutStringBuffer
            | Kind::OutEvents
    )
}

/// The bytes of guest memory from `ptr` on, as far as the regions have them without a gap, at most `len`. Of regions
/// that overlap, the last holds. `None` if they don't even have the first byte.
fn collect(regions: &[(u32, &[u8])], ptr: u32, len: u32) -> Option<Vec<u8>> {
    let (mut bytes, end) = (Vec::new(), u64::from(ptr) + u64::from(len));
    let mut at = u64::from(ptr);
    while at < end {
        let holds = |region: &(u32, &[u8])| {
            let start = u64::from(region.0);
            start <= at && at < start + region.1.len() as u64
        };
        let Some(index) = regions.iter().rposition(holds) else { break };
        let later = regions[index + 1..].iter().map(|region| u64::from(region.0)).filter(|start| *start > at);
        let end = later.fold(end, u64::min);
        let (start, region) = regions[index];
        let rest = &region[(at - u64::from(start)) as usize..];
        let rest = &rest[..rest.len().min((end - at) as usize)];
        bytes.extend_from_slice(rest);
        at += rest.len() as u64;
    }
    (len == 0 || !bytes.is_empty()).then_some(bytes)
}

fn buffer_of(bytes: Vec<u8>, total: u32, capacity: u32) -> Value {
    Value::Buffer { content: Box::new(Value::Bytes { bytes, total: total as usize }), capacity }
}

/// The name of an enumeration's value.
fn name_of(names: &'static [&'static str], value: u64) -> Value {
    match usize::try_from(value).ok().and_then(|index| names.get(index)) {
        Some(name) => Value::symbol(name),
        None => Value::Unsigned(value),
    }
}

/// Names of bits, in bit order; what has no name is a number.
fn flags(names: &[&str], value: u64) -> Value {
    let mut out = String::new();
    let mut rest = value;
    for (bit, name) in names.iter().enumerate() {
        if value & 1 << bit != 0 {
            let _ = write!(out, "{}{name}", if out.is_empty() { "" } else { "|" });
            rest &= !(1 << bit);
        }
    }
    if rest != 0 {
        let _ = write!(out, "{}{rest:#x}", if out.is_empty() { "" } else { "|" });
    }
    if out.is_empty() { Value::symbol("0") } else { Value::Symbol(Cow::Owned(out)) }
}

/// Sets of more than half of all rights are told by what they lack.
fn rights_of(value: u64) -> Value {
    let missing = rights::ALL & !value;
    if value == rights::ALL {
        return Value::symbol("ALL");
    }
    if value & !rights::ALL != 0 || value.count_ones() <= rights::ALL.count_ones() / 2 {
        return flags(&rights::NAMES, value);
    }
    let Value::Symbol(names) = flags(&rights::NAMES, missing) else { unreachable!("flags are symbols") };
    Value::Symbol(Cow::Owned(format!("ALL&~({names})")))
}

fn level(value: u64) -> Value {
    match u32::try_from(value) {
        Ok(socket::LEVEL_SOCKET) => Value::symbol("SOL_SOCKET"),
        Ok(socket::LEVEL_TCP) => Value::symbol("IPPROTO_TCP"),
        Ok(socket::LEVEL_IPV6) => Value::symbol("IPPROTO_IPV6"),
        Ok(socket::LEVEL_HOST) => Value::symbol("HOST"),
        _ => Value::Unsigned(value),
    }
}

fn option_name(level: u64, value: u64) -> Value {
    match (u32::try_from(level), u32::try_from(value)) {
        (Ok(socket::LEVEL_SOCKET), _) => name_of(&socket::OPTIONS, value),
        (Ok(socket::LEVEL_TCP), Ok(socket::TCP_NODELAY)) => Value::symbol("TCP_NODELAY"),
        (Ok(socket::LEVEL_IPV6), Ok(socket::IPV6_V6ONLY)) => Value::symbol("IPV6_V6ONLY"),
        (Ok(socket::LEVEL_HOST), Ok(socket::HOST_TLS)) => Value::symbol("TLS"),
        (Ok(socket::LEVEL_HOST), Ok(socket::HOST_ALPN)) => Value::symbol("ALPN"),
        _ => Value::Unsigned(value),
    }
}

fn fdstat(bytes: &[u8]) -> Value {
    Value::Struct(vec![
        ("filetype", name_of(&filetype::NAMES, u64::from(bytes[0]))),
        ("flags", flags(&fdflags::NAMES, u64::from(u16_at(bytes, 2)))),
        ("rights_base", rights_of(u64_at(bytes, 8))),
        ("rights_inheriting", rights_of(u64_at(bytes, 16))),
    ])
}

fn filestat(bytes: &[u8]) -> Value {
    Value::Struct(vec![
        ("dev", Value::Unsigned(u64_at(bytes, 0))),
        ("ino", Value::Unsigned(u64_at(bytes, 8))),
        ("filetype", name_of(&filetype::NAMES, u64::from(bytes[16]))),
        ("nlink", Value::Unsigned(u64_at(bytes, 24))),
        ("size", Value::Unsigned(u64_at(bytes, 32))),
        ("atim", Value::Time(u64_at(bytes, 40))),
        ("mtim", Value::Time(u64_at(bytes, 48))),
        ("ctim", Value::Time(u64_at(bytes, 56))),
    ])
}

fn prestat(bytes: &[u8]) -> Value {
    Value::Struct(vec![
        ("type", name_of(&["DIR"], u64::from(bytes[0]))),
        ("name_len", Value::Unsigned(u64::from(u32_at(bytes, 4)))),
    ])
}

/// Directory entries; the last may be cut off anywhere.
fn dirents(mut bytes: &[u8]) -> Vec<Value> {
    let mut entries = Vec::new();
    while let Some((entry, rest)) = bytes.split_at_checked(size::DIRENT as usize) {
        let total = u32_at(entry, 16) as usize;
        let (name, rest) = rest.split_at(total.min(rest.len()));
        entries.push(Value::Struct(vec![
            ("next", Value::Unsigned(u64_at(entry, 0))),
            ("ino", Value::Unsigned(u64_at(entry, 8))),
            ("type", name_of(&filetype::NAMES, u64::from(entry[20]))),
            ("name", Value::Bytes { bytes: name.to_vec(), total }),
        ]));
        bytes = rest;
    }
    entries
}

fn subscription(bytes: &[u8]) -> Value {
    let (userdata, tag) = (u64_at(bytes, 0), bytes[8]);
    let kind = event_name(tag);
    let (mut text, mut fields) = (kind.clone(), vec![("type", Value::Symbol(kind.into()))]);
    if tag == event::CLOCK {
        let (id, timeout_ns, flags) = (u32_at(bytes, 16), u64_at(bytes, 24), u16_at(bytes, 40));
        let clock = match clockid::NAMES.get(id as usize) {
            Some(name) => (*name).to_owned(),
            None => id.to_string(),
        };
        let is_absolute = flags & event::SUBCLOCK_ABSTIME != 0;
        let _ = if is_absolute {
            write!(text, " {clock} @{}", Seconds(timeout_ns))
        } else {
            write!(text, " {clock} +{}", Duration(timeout_ns))
        };
        fields.push(("clock", Value::Symbol(clock.into())));
        fields.push(("timeout_ns", Value::Unsigned(timeout_ns)));
        fields.push(("absolute", Value::Bool(is_absolute)));
    } else {
        let fd = i64::from(u32_at(bytes, 16) as i32);
        let _ = write!(text, " {fd}");
        fields.push(("fd", Value::Signed(fd)));
    }
    with_userdata(&text, fields, userdata)
}

fn event_of(bytes: &[u8]) -> Value {
    let (userdata, error, tag) = (u64_at(bytes, 0), u16_at(bytes, 8), bytes[10]);
    let kind = event_name(tag);
    let (mut text, mut fields) = (kind.clone(), vec![("type", Value::Symbol(kind.into()))]);
    let errno = Errno::from_raw(error).map_or_else(|| error.to_string(), |errno| errno.name().to_owned());
    if error != 0 {
        let _ = write!(text, " {errno}");
    }
    fields.push(("errno", Value::Symbol(errno.into())));
    if tag != event::CLOCK {
        let (nbytes, flags) = (u64_at(bytes, 16), u16_at(bytes, 24));
        let is_hangup = flags & event::FD_READWRITE_HANGUP != 0;
        let _ = write!(text, " nbytes={nbytes}{}", if is_hangup { " HANGUP" } else { "" });
        fields.push(("nbytes", Value::Unsigned(nbytes)));
        fields.push(("hangup", Value::Bool(is_hangup)));
    }
    with_userdata(&text, fields, userdata)
}

fn with_userdata(text: &str, mut fields: Vec<(&'static str, Value)>, userdata: u64) -> Value {
    fields.push(("userdata", Value::Unsigned(userdata)));
    let text = if userdata == 0 { format!("{{{text}}}") } else { format!("{{{text}, userdata={userdata:#x}}}") };
    Value::Split { text, fields }
}

fn event_name(tag: u8) -> String {
    names::EVENTS.get(usize::from(tag)).map_or_else(|| format!("event {tag}"), |name| (*name).to_owned())
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice is as long as the array")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_collected_over_regions_until_the_first_gap() {
        let regions: &[(u32, &[u8])] = &[(10, b"abcd"), (14, b"ef"), (12, b"X"), (20, b"z")];
        assert_eq!(collect(regions, 10, 100).unwrap(), b"abXdef");
        assert_eq!(collect(regions, 11, 1).unwrap(), b"b");
        assert_eq!(collect(regions, 16, 1), None);
        assert_eq!(collect(regions, 16, 0), Some(vec![]));
        assert_eq!(collect(&[(u32::MAX, b"a")], u32::MAX, 9).unwrap(), b"a");
    }

    #[test]
    fn flags_without_a_name_are_numbers() {
        let text = |value: Value| {
            let mut out = String::new();
            value.write_text(&mut out, &crate::strace::Options::default());
            out
        };
        assert_eq!(text(flags(&oflags::NAMES, 0)), "0");
        assert_eq!(text(flags(&oflags::NAMES, 9 | 1 << 40)), "CREAT|TRUNC|0x10000000000");
        assert_eq!(text(rights_of(rights::ALL)), "ALL");
        assert_eq!(text(rights_of(rights::ALL & !rights::FD_SEEK)), "ALL&~(FD_SEEK)");
        assert_eq!(text(rights_of(u64::MAX)).matches('|').count(), 30);
    }
}
