//! Waiting: `poll_oneoff`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno as Os;

use super::arguments::Arguments;
use super::sockets::flows::has_ended;
use super::streams::awaited;
use super::table::{Entry, Kind, Table};
use super::{Host, Outcome, Stop};
use crate::abi::{clockid, event, filetype, rights};
use crate::network::Ticket;
use crate::{Errno, KillSwitch, Memory};

/// Subscriptions of one call: above what guests use, and 768 KiB of their memory.
const SUBSCRIPTIONS_MAX: u32 = 16_384;
/// What a ready descriptor surely takes or has when the kernel doesn't tell, bytes.
const SOME_BYTES: u64 = 1;
/// Readiness that nobody needs to ask for.
const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR).union(PollFlags::NVAL);
const NANOSECONDS: u64 = 1_000_000_000;

/// One thing to wait for.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    userdata: u64,
    tag: u8,
    wait: Wait,
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    /// Until so long after the call began, nanoseconds.
    Time(u64),
    /// Until the descriptor is ready, for reading or for writing.
    Ready { fd: u32, interest: PollFlags },
    /// Can't be waited for. An error is an event.
    Failed(Errno),
}

/// What has happened to a subscription.
#[derive(Clone, Copy, Debug, Default)]
struct Occurrence {
    errno: u16,
    bytes: u64,
    flags: u16,
}

impl Host {
    pub(super) fn poll_oneoff(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let count = args.u32(2);
        if count == 0 || count > SUBSCRIPTIONS_MAX {
            return Err(Errno::Inval.into());
        }
        memory.check(args.u32(1), count * event::EVENT_BYTES)?;
        memory.check(args.u32(3), 4)?;
        let raw = memory.sent(args.u32(0), count * event::SUBSCRIPTION_BYTES)?;
        let chunks = raw.chunks_exact(event::SUBSCRIPTION_BYTES as usize);
        let subscriptions: Vec<Subscription> = chunks.map(|raw| self.subscription(raw)).collect::<Result<_, _>>()?;

        let (ready, elapsed_ns) = self.wait(&subscriptions)?;
        let events = &mut self.scratch.bytes;
        events.clear();
        for subscription in &subscriptions {
            let occurred = match subscription.wait {
                Wait::Failed(errno) => Some(Occurrence { errno: errno as u16, ..Occurrence::default() }),
                Wait::Time(timeout) => (timeout <= elapsed_ns).then(Occurrence::default),
                Wait::Ready { fd, interest } => {
                    let entry = self.table.get(fd)?;
                    ready.get(&fd).and_then(|returned| occurrence(entry, interest, *returned))
                }
            };
            if let Some(occurred) = occurred {
                events.extend_from_slice(&encode(subscription, occurred));
            }
        }
        let happened = events.len() as u32 / event::EVENT_BYTES;
        memory.write(args.u32(1), events)?;
        memory.write_u32(args.u32(3), happened)?;
        Ok(())
    }

    /// Takes one subscription from its wire form. What it can't do is an event; what makes no sense fails the call.
    fn subscription(&self, raw: &[u8]) -> Result<Subscription, Errno> {
        let u64_at = |at: usize| raw[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let u32_at = |at: usize| u64_at(at) as u32;
        let tag = raw[8];
        let wait = match tag {
            event::CLOCK => self.clock_wait(u32_at(16), u64_at(24), u64_at(40) as u16),
            event::FD_READ => self.ready_wait(u32_at(16), PollFlags::IN, rights::FD_READ),
            event::FD_WRITE => self.ready_wait(u32_at(16), PollFlags::OUT, rights::FD_WRITE),
            _ => return Err(Errno::Inval),
        };
        Ok(Subscription { userdata: u64_at(0), tag, wait: wait.unwrap_or_else(Wait::Failed) })
    }

    fn clock_wait(&self, clock: u32, timeout: u64, flags: u16) -> Result<Wait, Errno> {
        match clock {
            clockid::REALTIME | clockid::MONOTONIC => {}
            // CPU time stands still while the guest waits.
            clockid::PROCESS_CPUTIME | clockid::THREAD_CPUTIME => return Err(Errno::Notsup),
            _ => return Err(Errno::Inval),
        }
        match flags {
            0 => Ok(Wait::Time(timeout)),
            event::SUBCLOCK_ABSTIME => Ok(Wait::Time(timeout.saturating_sub(self.now(clock)?))),
            _ => Err(Errno::Inval),
        }
    }

    fn ready_wait(&self, fd: u32, interest: PollFlags, right: u64) -> Result<Wait, Errno> {
        let entry = self.table.get(fd)?;
        if matches!(entry.kind, Kind::Directory(_) | Kind::SocketDirectory(_)) {
            return Err(Errno::Badf);
        }
        // Either right is the right to poll: guests ask for the one that goes with what they will do.
        if entry.rights_base & (rights::POLL_FD_READWRITE | right) == 0 {
            return Err(Errno::Notcapable);
        }
        Ok(Wait::Ready { fd, interest })
    }

    /// Waits for the first of the subscriptions; returns what is ready and how long it took, nanoseconds.
    fn wait(&mut self, subscriptions: &[Subscription]) -> Result<(BTreeMap<u32, PollFlags>, u64), Stop> {
        let mut interests: BTreeMap<u32, PollFlags> = BTreeMap::new();
        let mut timeout: Option<u64> = None;
        for subscription in subscriptions {
            match subscription.wait {
                // An absent time-out is for ever, so that the least is not what `min` of options says.
                Wait::Time(time) => timeout = Some(timeout.map_or(time, |least| least.min(time))),
                Wait::Failed(_) => timeout = Some(0),
                Wait::Ready { fd, interest } => *interests.entry(fd).or_insert(PollFlags::empty()) |= interest,
            }
        }
        let started = self.clock.monotonic_ns();
        let mut elapsed = 0;
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(elapsed));
            let polled = poll_once(&mut self.table, &self.kill, &interests, left)?;
            elapsed = self.clock.monotonic_ns().saturating_sub(started);
            match polled {
                // The kernel's word that the time is up counts, whatever clock the guest is shown.
                Polled::TimedOut(ready) => return Ok((ready, elapsed.max(timeout.unwrap_or(0)))),
                Polled::Ready(ready) => return Ok((ready, elapsed)),
                Polled::Again => {}
            }
        }
    }
}

/// What the readiness of a kernel's descriptor means to the guest's that it is polled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The guest's is as ready.
    Itself,
    /// The network has answered: the socket is another, and must be looked at anew.
    Again,
    /// There are messages for the guest's, or the end of one of several peers, which is nothing to it.
    Messages,
}

/// What is polled for one descriptor of the guest, or several.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    fds: Vec<PollFd<'a>>,
    meanings: Vec<Meaning>,
    /// What it is ready for without asking the kernel.
    pub ready: PollFlags,
}

impl<'a> Watch<'a> {
    pub fn push(&mut self, fd: BorrowedFd<'a>, interest: PollFlags, meaning: Meaning) {
        self.fds.push(PollFd::from_borrowed_fd(fd, interest));
        self.meanings.push(meaning);
    }

    /// Waits for the network's answer.
    pub fn ticket(&mut self, ticket: Option<&'a Ticket>) {
        if let Some(fd) = ticket.and_then(Ticket::descriptor) {
            self.push(fd, PollFlags::IN, Meaning::Again);
        }
    }
}

impl Entry {
    fn watch<'a>(&'a self, interest: PollFlags, watch: &mut Watch<'a>) -> Result<(), Errno> {
        match &self.kind {
            Kind::Socket(socket) => socket.watch(interest, watch),
            _ => watch.push(self.fd()?, interest, Meaning::Itself),
        }
        Ok(())
    }
}

/// How a poll ended.
enum Polled {
    TimedOut(BTreeMap<u32, PollFlags>),
    Ready(BTreeMap<u32, PollFlags>),
    /// Nothing that counts: something must be looked at anew, or a signal came.
    Again,
}

/// Polls the descriptors once, after having looked at what the network has answered meanwhile.
fn poll_once(
    table: &mut Table,
    kill: &KillSwitch,
    interests: &BTreeMap<u32, PollFlags>,
    timeout: Option<u64>,
) -> Result<Polled, Stop> {
    for fd in interests.keys() {
        if let Kind::Socket(socket) = &mut table.get_mut(*fd)?.kind {
            socket.settle();
            socket.prune();
        }
    }
    // One entry a descriptor, or few: the kernel refuses lists longer than the limit on open files.
    let mut watch = Watch { fds: Vec::new(), meanings: Vec::new(), ready: PollFlags::empty() };
    let mut watched = Vec::with_capacity(interests.len());
    let mut is_ready = false;
    for (fd, interest) in interests {
        let from = watch.fds.len();
        watch.ready = PollFlags::empty();
        table.get(*fd)?.watch(*interest, &mut watch)?;
        is_ready |= watch.ready.intersects(*interest | GONE);
        watched.push((*fd, from..watch.fds.len(), watch.ready));
    }
    let Watch { mut fds, meanings, .. } = watch;
    fds.push(PollFd::from_borrowed_fd(kill.descriptor(), PollFlags::IN));
    let timeout = if is_ready { Some(0) } else { timeout };
    let polled = poll(&mut fds, timeout.map(timespec).as_ref());
    awaited(kill)?;
    let count = match polled {
        Ok(count) => count,
        Err(Os::INTR) => return Ok(Polled::Again),
        Err(error) => return Err(error.into()),
    };
    let is_new = |(fd, meaning): (&PollFd<'_>, &Meaning)| match meaning {
        Meaning::Itself => false,
        Meaning::Again => !fd.revents().is_empty(),
        Meaning::Messages => fd.revents().intersects(GONE) && has_ended(fd.as_fd()),
    };
    if fds.iter().zip(&meanings).any(is_new) {
        return Ok(Polled::Again);
    }
    let revents = |at: usize| match meanings[at] {
        Meaning::Messages => fds[at].revents() & PollFlags::IN,
        _ => fds[at].revents(),
    };
    let returned = |range: std::ops::Range<usize>, ready| range.fold(ready, |all, at| all | revents(at));
    let ready = watched.into_iter().map(|(fd, range, ready)| (fd, returned(range, ready))).collect();
    Ok(if count == 0 && !is_ready { Polled::TimedOut(ready) } else { Polled::Ready(ready) })
}

/// Waits until a descriptor is ready (or has failed, which its use will tell), the guest is killed, or the time is up,
/// which is [`Errno::Again`].
pub(super) fn block_on(
    table: &mut Table,
    kill: &KillSwitch,
    fd: u32,
    interest: PollFlags,
    timeout: Option<Duration>,
) -> Result<(), Stop> {
    let interests = BTreeMap::from([(fd, interest)]);
    let started = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()).as_nanos() as u64);
        match poll_once(table, kill, &interests, left)? {
            Polled::TimedOut(_) => return Err(Errno::Again.into()),
            Polled::Ready(_) => return Ok(()),
            Polled::Again => {}
        }
    }
}

fn timespec(nanoseconds: u64) -> Timespec {
    Timespec { tv_sec: (nanoseconds / NANOSECONDS) as i64, tv_nsec: (nanoseconds % NANOSECONDS) as i64 }
}

/// What a descriptor's readiness is to a subscription; nothing if it is of no interest.
fn occurrence(entry: &Entry, interest: PollFlags, returned: PollFlags) -> Option<Occurrence> {
    if !returned.intersects(interest | GONE) {
        return None;
    }
    let bytes = match interest {
        PollFlags::IN => readable_bytes(entry, returned),
        _ => SOME_BYTES,
    };
    let hangup = returned.intersects(PollFlags::HUP | PollFlags::ERR);
    Some(Occurrence { errno: 0, bytes, flags: if hangup { event::FD_READWRITE_HANGUP } else { 0 } })
}

fn readable_bytes(entry: &Entry, returned: PollFlags) -> u64 {
    let fd = match (&entry.kind, entry.fd()) {
        (Kind::Socket(socket), _) => return socket.readable_bytes(),
        (_, Ok(fd)) => fd,
        (_, Err(_)) => return 0,
    };
    if entry.filetype() == filetype::REGULAR_FILE {
        let size = rustix::fs::fstat(fd).map_or(0, |stat| stat.st_size as u64);
        return size.saturating_sub(rustix::fs::tell(fd.as_fd()).unwrap_or(0));
    }
    match rustix::io::ioctl_fionread(fd) {
        Ok(bytes) => bytes,
        Err(_) if returned.contains(PollFlags::IN) => SOME_BYTES,
        Err(_) => 0,
    }
}

fn encode(subscription: &Subscription, occurred: Occurrence) -> [u8; event::EVENT_BYTES as usize] {
    let mut bytes = [0; event::EVENT_BYTES as usize];
    bytes[0..8].copy_from_slice(&subscription.userdata.to_le_bytes());
    bytes[8..10].copy_from_slice(&occurred.errno.to_le_bytes());
    bytes[10] = subscription.tag;
    bytes[16..24].copy_from_slice(&occurred.bytes.to_le_bytes());
    bytes[24..26].copy_from_slice(&occurred.flags.to_le_bytes());
    bytes
}
