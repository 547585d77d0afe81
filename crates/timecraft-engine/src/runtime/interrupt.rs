//! Ending a guest that doesn't call the host: a signal to its thread makes the code it runs trap.
//!
//! wasmer has this behind a feature whose checks take a lock in a hash map on every host call. We use the mechanism
//! beneath it (`wasmer_vm::interrupt_registry`) once per run, and look at our own atomic after host calls instead
//! (docs/rationale.md).

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use wasmer_types::StoreId;
use wasmer_vm::interrupt_registry;

use super::engine::GuestMemory;
use super::guest::Limits;
use crate::{Kill, KillSwitch};

/// Interval at which a requested interrupt is repeated: one that arrives while the guest is inside the host or the
/// engine's own functions is ignored there. Short, because a guest that does nothing but call these is in its own code
/// only a hundredth of the time.
const RETRY: Duration = Duration::from_micros(50);

/// A handler for `Store::set_trap_handler`: lets interrupts through only while the guest's own code runs, or libc works
/// on the guest's memory. Unwinding out of other helper functions of the engine (memory growth, say) would leave their
/// locks taken; out of `memset` or `memmove` it leaves nothing, and a guest that fills gigabytes is nowhere else.
/// A host call's own `memset` is not meant: it runs on another stack, out of which the engine never unwinds.
///
/// `interrupted` is set when one got through. The trap's code doesn't tell: at an instruction that may trap by itself,
/// such as a load, wasmer reports that instruction's own trap.
pub(super) fn only_within(
    code: Range<usize>,
    memory: GuestMemory,
    interrupted: Arc<AtomicBool>,
) -> Box<dyn Fn(i32, *const libc::siginfo_t, *const libc::c_void) -> bool + Send + Sync> {
    let libc_code = libc_code();
    Box::new(move |signal, _info, context| {
        if signal != libc::SIGUSR1 {
            return false;
        }
        let Registers { pc, targets } = registers(context);
        let is_bulk = || libc_code.contains(&pc) && targets.iter().any(|target| memory.range().contains(target));
        let is_within = code.contains(&pc) || is_bulk();
        if is_within {
            interrupted.store(true, Ordering::Relaxed);
        }
        !is_within
    })
}

/// Where the machine code of the C library lies; empty if it isn't apart from ours.
#[allow(unsafe_code)]
fn libc_code() -> Range<usize> {
    static CODE: OnceLock<Range<usize>> = OnceLock::new();
    let find = || {
        // SAFETY: looks up a name that ends with NUL.
        let memset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"memset".as_ptr()) } as usize;
        let ours = libc_code as *const () as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let ranges = maps.lines().filter_map(|line| {
            let (start, rest) = line.split_once('-')?;
            let (end, _) = rest.split_once(' ')?;
            Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
        });
        ranges.into_iter().find(|range| range.contains(&memset) && !range.contains(&ours)).unwrap_or_default()
    };
    CODE.get_or_init(find).clone()
}

/// The handler that wasmer has for its interrupts, once it is wrapped.
static INTERRUPT: OnceLock<libc::sigaction> = OnceLock::new();

/// Sees to it that SIGUSR1 from outside the process is ignored: wasmer's handler aborts the process when nobody in it
/// asked for an interrupt. To be called before the first guest runs; once is enough.
#[allow(unsafe_code)]
pub(super) fn ignore_foreign_signals() {
    INTERRUPT.get_or_init(|| {
        wasmer_vm::init_traps();
        // SAFETY: plain system calls on structures that live through them. The new handler has the signature that
        // SA_SIGINFO asks for, and the flags of the old one, among them the alternate stack.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGUSR1, std::ptr::null(), &raw mut before);
            let mut ours = before;
            ours.sa_sigaction = on_interrupt as *const () as usize;
            libc::sigaction(libc::SIGUSR1, &raw const ours, std::ptr::null_mut());
            before
        }
    });
}

#[allow(unsafe_code)]
extern "C" fn on_interrupt(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo_t to a handler with SA_SIGINFO.
    let ours = unsafe { (*info).si_code == libc::SI_TKILL && (*info).si_pid() == libc::getpid() };
    if let (true, Some(handler)) = (ours, INTERRUPT.get()) {
        // SAFETY: it was installed as a handler with SA_SIGINFO, and gets what the kernel gave us.
        unsafe {
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler.sa_sigaction);
            handler(signal, info, context);
        }
    }
}

/// Where a thread was interrupted.
struct Registers {
    pc: usize,
    /// What `memset` and `memmove` write to: where they began, or where they are.
    targets: [usize; 2],
}

#[allow(unsafe_code)]
fn registers(context: *const libc::c_void) -> Registers {
    // SAFETY: the kernel hands a ucontext_t to handlers installed with SA_SIGINFO, which wasmer's are.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    {
        let register = |number: i32| context.uc_mcontext.gregs[number as usize] as usize;
        Registers { pc: register(libc::REG_RIP), targets: [register(libc::REG_RAX), register(libc::REG_RDI)] }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let target = context.uc_mcontext.regs[0] as usize;
        Registers { pc: context.uc_mcontext.pc as usize, targets: [target, target] }
    }
}

/// Watches one guest: carries requests of its [`KillSwitch`] to its thread, and makes one when time runs out.
#[derive(Debug)]
pub(super) struct Watchdog {
    ended: Arc<AtomicBool>,
    wake: Arc<std::os::fd::OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts watching the calling thread, on which the store's code will run.
    pub(super) fn start(store: StoreId, kill: Arc<KillSwitch>, limits: &Limits) -> std::io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let deadlines = Deadlines::new(limits);
        let (watched, woken) = (Arc::clone(&ended), Arc::clone(&wake));
        let thread = std::thread::Builder::new().name("timecraft-watch".into()).spawn(move || {
            while !watched.load(Ordering::Acquire) && !kill.is_requested() {
                if let Some(reason) = deadlines.passed() {
                    kill.request(reason);
                    break;
                }
                wait(&[kill.end_descriptor(), woken.as_fd()], deadlines.next());
            }
            while !watched.load(Ordering::Acquire) {
                // StoreNotRunning and OtherInterruptInProgress pass: the next round tries again.
                let _ = interrupt_registry::interrupt(store);
                wait(&[woken.as_fd()], Some(RETRY));
            }
        })?;
        Ok(Watchdog { ended, wake, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wait(descriptors: &[std::os::fd::BorrowedFd<'_>], timeout: Option<Duration>) {
    let mut polled: Vec<_> = descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout =
        timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
    // EINTR only makes the caller look again.
    let _ = poll(&mut polled, timeout.as_ref());
}

/// When a guest's time is over. CPU time is the guest thread's, read from outside through its clock.
#[derive(Debug)]
struct Deadlines {
    started: std::time::Instant,
    wall: Option<Duration>,
    cpu: Option<Duration>,
    clock: libc::clockid_t,
}

impl Deadlines {
    #[allow(unsafe_code)]
    fn new(limits: &Limits) -> Self {
        let mut clock = libc::CLOCK_THREAD_CPUTIME_ID;
        // SAFETY: the calling thread is alive, and outlives the watchdog, which it joins.
        unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        Deadlines {
            started: std::time::Instant::now(),
            wall: limits.wall_ns.map(Duration::from_nanos),
            cpu: limits.cpu_ns.map(Duration::from_nanos),
            clock,
        }
    }

    #[allow(unsafe_code)]
    fn cpu_used(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec; an unknown clock leaves it zero.
        unsafe { libc::clock_gettime(self.clock, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn passed(&self) -> Option<Kill> {
        if let Some(wall) = self.wall.filter(|wall| self.started.elapsed() >= *wall) {
            return Some(Kill::Limit(format!("wall time limit of {wall:?} reached (--timeout)")));
        }
        if let Some(cpu) = self.cpu.filter(|cpu| self.cpu_used() >= *cpu) {
            return Some(Kill::Limit(format!("CPU time limit of {cpu:?} reached (--cpu)")));
        }
        None
    }

    /// Time until the next look is due: CPU time passes no faster than wall time.
    fn next(&self) -> Option<Duration> {
        let wall = self.wall.map(|wall| wall.saturating_sub(self.started.elapsed()));
        let cpu = self.cpu.map(|cpu| cpu.saturating_sub(self.cpu_used()).max(Duration::from_millis(1)));
        match (wall, cpu) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
