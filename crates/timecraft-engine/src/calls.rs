//! The table of all host calls: ids, names, parameters.
//!
//! One table drives everything that must know every call: linking (wasm signatures), tracing (how arguments print),
//! and the tests that push each call through host, record, codec, replay and chaos.

use crate::abi::oflags;

/// How one parameter is passed and printed. A kind takes one wasm argument unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fd,
    /// An unsigned count or size, i32.
    U32,
    /// An unsigned 64-bit number (file size, offset, cookie, precision).
    U64,
    /// A signed 64-bit number (seek offset).
    I64,
    /// Nanoseconds, i64.
    Time,
    Clock,
    Whence,
    Advice,
    Signal,
    OpenFlags,
    LookupFlags,
    FdFlags,
    FstFlags,
    Rights,
    SocketFlags,
    /// Address family, socket type, level and name of a socket option, i32 each.
    Family,
    SocketType,
    OptionLevel,
    OptionName,
    /// A socket address and its port: two arguments, pointer to `{buf, len}` and the port.
    Address,
    /// The value of a socket option: two arguments, pointer and length.
    OptionValue,
    /// Hints of `sock_getaddrinfo`.
    Hints,
    /// Guest text: two arguments, pointer and length.
    Path,
    /// Guest's gather list (data goes out): two arguments, pointer and count.
    IovecsOut,
    /// Guest's scatter list (data comes in): two arguments, pointer and count.
    IovecsIn,
    /// A buffer that the host fills: two arguments, pointer and length.
    Buffer,
    /// Result cells, one pointer argument each.
    OutU32,
    OutU64,
    OutFd,
    OutTime,
    OutFdstat,
    OutFilestat,
    OutPrestat,
    OutFlags,
    /// Where an address goes: pointer to `{buf, len}`, both chosen by the guest.
    OutAddress,
    /// Where the value of a socket option goes: two arguments, pointer and length. The length is a number (package
    /// `wasip1`) or the address of one (`WasmEdge`): `abi::socket::OPTION_BYTES_MAX` tells them apart.
    OutOption,
    /// Pointer to the first of a chain of `addrinfo` structures, which the host fills (`sock_getaddrinfo`).
    OutAddresses,
    /// Array of pointers into the string buffer that the next parameter names (`args_get`, `environ_get`).
    OutStrings,
    OutStringBuffer,
    /// Subscriptions and events of `poll_oneoff`, one pointer each; the count is its own parameter.
    Subscriptions,
    OutEvents,
    ExitCode,
}

/// Wasm value types that occur in the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValType {
    I32,
    I64,
}

impl Kind {
    /// The wasm parameter types that the kind takes.
    pub const fn types(self) -> &'static [ValType] {
        match self {
            Kind::U64 | Kind::I64 | Kind::Time | Kind::Rights => &[ValType::I64],
            Kind::Path
            | Kind::IovecsOut
            | Kind::IovecsIn
            | Kind::Buffer
            | Kind::Address
            | Kind::OptionValue
            | Kind::OutOption => &[ValType::I32, ValType::I32],
            _ => &[ValType::I32],
        }
    }
}

/// One parameter of a host call.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
}

/// One host call.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub call: Call,
    /// Import module, e.g. `wasi_snapshot_preview1`.
    pub module: &'static str,
    pub name: &'static str,
    pub params: &'static [Param],
    /// Whether the call returns an errno (all but `proc_exit`).
    pub returns: bool,
}

impl Spec {
    /// The wasm parameter types, in order.
    pub fn types(&self) -> Vec<ValType> {
        self.params.iter().flat_map(|param| param.kind.types()).copied().collect()
    }
}

/// The import module of WASI preview 1.
pub const PREVIEW1: &str = "wasi_snapshot_preview1";

macro_rules! calls {
    ($($id:literal $call:ident $name:literal ($($param:ident: $kind:ident),* $(,)?) $($ret:ident)?;)*) => {
        /// Ids of host calls. They are part of the log format: never renumbered, never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Call { $($call = $id,)* }

        /// Every host call, in order of id; ids are dense, so `CALLS[call as usize]` is the call's own entry.
        pub const CALLS: &[Spec] = &[$(Spec {
            call: Call::$call,
            module: PREVIEW1,
            name: $name,
            params: &[$(Param { name: stringify!($param), kind: Kind::$kind }),*],
            returns: calls!(@returns $($ret)?),
        },)*];
    };
    (@returns noreturn) => { false };
    (@returns) => { true };
}

calls! {
    0 ArgsGet "args_get" (argv: OutStrings, argv_buf: OutStringBuffer);
    1 ArgsSizesGet "args_sizes_get" (argc: OutU32, argv_buf_size: OutU32);
    2 EnvironGet "environ_get" (environ: OutStrings, environ_buf: OutStringBuffer);
    3 EnvironSizesGet "environ_sizes_get" (count: OutU32, buf_size: OutU32);
    4 ClockResGet "clock_res_get" (id: Clock, resolution: OutTime);
    5 ClockTimeGet "clock_time_get" (id: Clock, precision: Time, time: OutTime);
    6 FdAdvise "fd_advise" (fd: Fd, offset: U64, len: U64, advice: Advice);
    7 FdAllocate "fd_allocate" (fd: Fd, offset: U64, len: U64);
    8 FdClose "fd_close" (fd: Fd);
    9 FdDatasync "fd_datasync" (fd: Fd);
    10 FdFdstatGet "fd_fdstat_get" (fd: Fd, stat: OutFdstat);
    11 FdFdstatSetFlags "fd_fdstat_set_flags" (fd: Fd, flags: FdFlags);
    12 FdFdstatSetRights "fd_fdstat_set_rights" (fd: Fd, base: Rights, inheriting: Rights);
    13 FdFilestatGet "fd_filestat_get" (fd: Fd, stat: OutFilestat);
    14 FdFilestatSetSize "fd_filestat_set_size" (fd: Fd, size: U64);
    15 FdFilestatSetTimes "fd_filestat_set_times" (fd: Fd, atim: Time, mtim: Time, flags: FstFlags);
    16 FdPread "fd_pread" (fd: Fd, iovs: IovecsIn, offset: U64, nread: OutU32);
    17 FdPrestatGet "fd_prestat_get" (fd: Fd, prestat: OutPrestat);
    18 FdPrestatDirName "fd_prestat_dir_name" (fd: Fd, path: Buffer);
    19 FdPwrite "fd_pwrite" (fd: Fd, iovs: IovecsOut, offset: U64, nwritten: OutU32);
    20 FdRead "fd_read" (fd: Fd, iovs: IovecsIn, nread: OutU32);
    21 FdReaddir "fd_readdir" (fd: Fd, buf: Buffer, cookie: U64, bufused: OutU32);
    22 FdRenumber "fd_renumber" (fd: Fd, to: Fd);
    23 FdSeek "fd_seek" (fd: Fd, offset: I64, whence: Whence, newoffset: OutU64);
    24 FdSync "fd_sync" (fd: Fd);
    25 FdTell "fd_tell" (fd: Fd, offset: OutU64);
    26 FdWrite "fd_write" (fd: Fd, iovs: IovecsOut, nwritten: OutU32);
    27 PathCreateDirectory "path_create_directory" (fd: Fd, path: Path);
    28 PathFilestatGet "path_filestat_get" (fd: Fd, flags: LookupFlags, path: Path, stat: OutFilestat);
    29 PathFilestatSetTimes "path_filestat_set_times" (
        fd: Fd, flags: LookupFlags, path: Path, atim: Time, mtim: Time, fst_flags: FstFlags);
    30 PathLink "path_link" (old_fd: Fd, old_flags: LookupFlags, old_path: Path, new_fd: Fd, new_path: Path);
    31 PathOpen "path_open" (
        fd: Fd, dirflags: LookupFlags, path: Path, oflags: OpenFlags, rights_base: Rights,
        rights_inheriting: Rights, fdflags: FdFlags, opened_fd: OutFd);
    32 PathReadlink "path_readlink" (fd: Fd, path: Path, buf: Buffer, bufused: OutU32);
    33 PathRemoveDirectory "path_remove_directory" (fd: Fd, path: Path);
    34 PathRename "path_rename" (fd: Fd, old_path: Path, new_fd: Fd, new_path: Path);
    35 PathSymlink "path_symlink" (old_path: Path, fd: Fd, new_path: Path);
    36 PathUnlinkFile "path_unlink_file" (fd: Fd, path: Path);
    37 PollOneoff "poll_oneoff" (subscriptions: Subscriptions, events: OutEvents, nsubscriptions: U32, nevents: OutU32);
    38 ProcExit "proc_exit" (code: ExitCode) noreturn;
    39 ProcRaise "proc_raise" (signal: Signal);
    40 SchedYield "sched_yield" ();
    41 RandomGet "random_get" (buf: Buffer);
    42 SockAccept "sock_accept" (fd: Fd, flags: FdFlags, accepted_fd: OutFd);
    43 SockRecv "sock_recv" (fd: Fd, data: IovecsIn, ri_flags: SocketFlags, nread: OutU32, ro_flags: OutFlags);
    44 SockSend "sock_send" (fd: Fd, data: IovecsOut, si_flags: SocketFlags, nwritten: OutU32);
    45 SockShutdown "sock_shutdown" (fd: Fd, how: SocketFlags);
    46 SockOpen "sock_open" (family: Family, socktype: SocketType, opened_fd: OutFd);
    47 SockBind "sock_bind" (fd: Fd, address: Address);
    48 SockListen "sock_listen" (fd: Fd, backlog: U32);
    49 SockConnect "sock_connect" (fd: Fd, address: Address);
    50 SockGetsockopt "sock_getsockopt" (fd: Fd, level: OptionLevel, option: OptionName, value: OutOption);
    51 SockSetsockopt "sock_setsockopt" (fd: Fd, level: OptionLevel, option: OptionName, value: OptionValue);
    52 SockSendTo "sock_send_to" (
        fd: Fd, data: IovecsOut, address: Address, si_flags: SocketFlags, nwritten: OutU32);
    53 SockGetaddrinfo "sock_getaddrinfo" (
        node: Path, service: Path, hints: Hints, res: OutAddresses, res_max: U32, res_len: OutU32);
    54 SockAcceptV1 "sock_accept" (fd: Fd, accepted_fd: OutFd);
    55 SockRecvFromV1 "sock_recv_from" (
        fd: Fd, data: IovecsIn, address: OutAddress, ri_flags: SocketFlags, nread: OutU32, ro_flags: OutFlags);
    56 SockGetlocaladdrV1 "sock_getlocaladdr" (fd: Fd, address: OutAddress, family: OutU32, port: OutU32);
    57 SockGetpeeraddrV1 "sock_getpeeraddr" (fd: Fd, address: OutAddress, family: OutU32, port: OutU32);
    58 SockRecvFrom "sock_recv_from" (
        fd: Fd, data: IovecsIn, address: OutAddress, ri_flags: SocketFlags, port: OutU32, nread: OutU32,
        ro_flags: OutFlags);
    59 SockGetlocaladdr "sock_getlocaladdr" (fd: Fd, address: OutAddress, port: OutU32);
    60 SockGetpeeraddr "sock_getpeeraddr" (fd: Fd, address: OutAddress, port: OutU32);
}

impl Call {
    /// The call's entry in [`CALLS`].
    pub fn spec(self) -> &'static Spec {
        &CALLS[self as usize]
    }

    /// The call's name, e.g. `fd_write`.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The call with a given id, `None` if this build knows no such call.
    pub fn from_id(id: u16) -> Option<Self> {
        CALLS.get(usize::from(id)).map(|spec| spec.call)
    }

    /// The calls with a given import module and name that `abi` offers: more than one where versions of an ABI differ
    /// in signature alone.
    pub fn named<'n>(module: &'n str, name: &'n str, abi: SocketAbi) -> impl Iterator<Item = Self> + 'n {
        let named = CALLS.iter().filter(move |spec| spec.module == module && spec.name == name);
        named.map(|spec| spec.call).filter(move |call| abi.offers(*call))
    }

    /// The call with a given import module, name and wasm parameters, all with the result that its name has.
    pub fn from_import(module: &str, name: &str, params: &[ValType], abi: SocketAbi) -> Option<Self> {
        Self::named(module, name, abi).find(|call| call.spec().types() == params)
    }
}

impl Call {
    /// Whether a call can have an effect that others see: data that leave, files and names that change, connections
    /// that begin or end. What a descriptor stands for is not known here.
    ///
    /// The end of a process is none of these: it is told once the log is closed.
    #[inline]
    pub fn is_output(self, args: &[u64]) -> bool {
        const CREATES_OR_TRUNCATES: u64 = (oflags::CREAT | oflags::TRUNC) as u64;
        const OUTPUTS: u64 = bits(&[
            Call::FdAllocate,
            Call::FdClose,
            Call::FdFilestatSetSize,
            Call::FdFilestatSetTimes,
            Call::FdPwrite,
            Call::FdRenumber,
            Call::FdWrite,
            Call::PathCreateDirectory,
            Call::PathFilestatSetTimes,
            Call::PathLink,
            Call::PathRemoveDirectory,
            Call::PathRename,
            Call::PathSymlink,
            Call::PathUnlinkFile,
            Call::SockConnect,
            Call::SockGetaddrinfo,
            Call::SockListen,
            Call::SockSend,
            Call::SockSendTo,
            Call::SockShutdown,
        ]);
        let opens = self == Call::PathOpen && args.get(4).is_some_and(|flags| flags & CREATES_OR_TRUNCATES != 0);
        OUTPUTS >> (self as u16) & 1 != 0 || opens
    }
}

/// A set of calls; all ids are below 64.
const fn bits(calls: &[Call]) -> u64 {
    let (mut set, mut at) = (0, 0);
    while at < calls.len() {
        set |= 1 << (calls[at] as u16);
        at += 1;
    }
    set
}

/// How many of the first regions that a call reads from guest memory are no data, for
/// [`LogConfig::kept`](timecraft_log::LogConfig::kept): the host reads data last.
pub fn kept(id: u16) -> u8 {
    match Call::from_id(id) {
        Some(Call::FdWrite | Call::FdPwrite | Call::SockSend) => 0,
        // `{buf, len}`, and the address there.
        Some(Call::SockSendTo) => 2,
        _ => timecraft_log::KEEP_ALL,
    }
}

/// Which socket calls a guest is offered beyond preview 1's own, which are always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketAbi {
    None,
    /// Whichever version the module imports.
    #[default]
    Auto,
    /// `WasmEdge`'s first: `sock_accept` without flags, addresses of 4 or 16 bytes.
    V1,
    /// `WasmEdge`'s second: addresses carry their family, in 128 bytes.
    V2,
    /// None, but paths that are sockets: [`SocketDirectory`](crate::host::SocketDirectory).
    Path,
}

impl SocketAbi {
    /// Whether the guest can import the call.
    pub fn offers(self, call: Call) -> bool {
        match call {
            Call::SockOpen
            | Call::SockBind
            | Call::SockListen
            | Call::SockConnect
            | Call::SockGetsockopt
            | Call::SockSetsockopt
            | Call::SockSendTo
            | Call::SockGetaddrinfo => !matches!(self, SocketAbi::None | SocketAbi::Path),
            Call::SockAcceptV1 | Call::SockRecvFromV1 | Call::SockGetlocaladdrV1 | Call::SockGetpeeraddrV1 => {
                matches!(self, SocketAbi::Auto | SocketAbi::V1)
            }
            Call::SockRecvFrom | Call::SockGetlocaladdr | Call::SockGetpeeraddr => {
                matches!(self, SocketAbi::Auto | SocketAbi::V2)
            }
            _ => true,
        }
    }
}

impl std::str::FromStr for SocketAbi {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "none" => Ok(SocketAbi::None),
            "auto" => Ok(SocketAbi::Auto),
            "v1" => Ok(SocketAbi::V1),
            "v2" => Ok(SocketAbi::V2),
            "path" => Ok(SocketAbi::Path),
            _ => Err(format!("no socket ABI is called {name:?}; choose none, auto, v1, v2 or path")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dense_and_in_order() {
        for (index, spec) in CALLS.iter().enumerate() {
            assert_eq!(spec.call as usize, index);
            assert_eq!(Call::from_id(index as u16), Some(spec.call));
            let found = Call::from_import(spec.module, spec.name, &spec.types(), SocketAbi::Auto);
            assert_eq!(found, Some(spec.call));
        }
        assert_eq!(CALLS.len(), 61);
    }

    #[test]
    fn every_call_that_sends_data_is_known_as_such() {
        for spec in CALLS {
            let sends = spec.params.iter().any(|param| param.kind == Kind::IovecsOut);
            let addresses = spec.params.iter().filter(|param| param.kind == Kind::Address).count() as u8;
            let expected = if sends { 2 * addresses } else { timecraft_log::KEEP_ALL };
            assert_eq!(kept(spec.call as u16), expected, "{}", spec.name);
        }
    }

    #[test]
    fn what_hands_out_data_or_changes_a_name_is_an_output() {
        for spec in CALLS {
            let sends = spec.params.iter().any(|param| param.kind == Kind::IovecsOut);
            let changes = ["create", "remove", "rename", "unlink", "link", "symlink", "_set_size", "_set_times"];
            let is_output =
                sends || changes.iter().any(|word| spec.name.contains(word) && spec.name != "path_readlink");
            assert!(!is_output || spec.call.is_output(&[0; 9]), "{}", spec.name);
            assert!(!spec.name.contains("_get") || spec.name == "sock_getaddrinfo" || !spec.call.is_output(&[0; 9]));
        }
        assert!(CALLS.len() <= 64 && !Call::FdRead.is_output(&[0; 4]));
        let open = |flags| Call::PathOpen.is_output(&[3, 0, 0, 0, flags, 0, 0, 0, 0]);
        assert!(!open(0) && !open(u64::from(oflags::EXCL)) && open(u64::from(oflags::CREAT | oflags::TRUNC)));
    }

    #[test]
    fn versions_are_told_apart_by_signature_and_can_be_chosen() {
        use ValType::I32;
        let accept = |count: usize, abi| Call::from_import(PREVIEW1, "sock_accept", &[I32; 3][..count], abi);
        assert_eq!(accept(3, SocketAbi::Auto), Some(Call::SockAccept));
        assert_eq!(accept(2, SocketAbi::Auto), Some(Call::SockAcceptV1));
        assert_eq!(accept(3, SocketAbi::None), Some(Call::SockAccept), "preview 1's own");
        assert_eq!(accept(2, SocketAbi::V2), None);
        assert_eq!(accept(1, SocketAbi::Auto), None);
        let offered = |abi: SocketAbi| CALLS.iter().filter(|spec| abi.offers(spec.call)).count();
        let counts = [SocketAbi::None, SocketAbi::Path, SocketAbi::V1, SocketAbi::V2, SocketAbi::Auto].map(offered);
        assert_eq!(counts, [46, 46, 58, 57, 61]);
        assert_eq!("v1".parse(), Ok(SocketAbi::V1));
        assert!("v3".parse::<SocketAbi>().is_err());
    }
}
