//! What a process that runs other people's programs gives up before it does.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// System calls that no guest's work leads to. Others, of files, memory, sockets and threads, are its daily bread.
const NEVER: &[libc::c_long] = &[
    // Other programs, and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // Namespaces and mounts.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Who it is.
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    // The kernel, and what it has had holes in.
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];
/// The same, where the processor has them at all.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_mknod,
    libc::SYS_modify_ldt,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[libc::c_long] = &[libc::SYS_kexec_file_load];

/// Why a process couldn't be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("this kind of processor has no filter of system calls: {0}")]
    Architecture(#[source] seccompiler::BackendError),
    #[error("the kernel took no filter of system calls: {0}")]
    Kernel(#[source] Error),
}

/// Takes from this process, for good and for all its threads, new privileges (`no_new_privs`) and the system calls that
/// no guest's work leads to: they fail with EPERM. Threads may still be made, processes may not.
///
/// # Errors
/// When the kernel or the processor has no seccomp filters; nothing has changed then.
pub fn confine() -> Result<(), ConfineError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(ConfineError::Architecture)?;
    // glibc makes threads by clone3, whose flags lie in memory where no filter sees them; told that there is none it
    // takes clone. The kernel takes the strictest of all filters' answers: ENOSYS stands alone in its filter.
    let no_clone3 = filter(BTreeMap::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS, arch)?;
    let mut rules: BTreeMap<_, _> = NEVER.iter().chain(NEVER_HERE).map(|call| (*call, vec![])).collect();
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), 0)?]);
    rules.insert(libc::SYS_ioctl, vec![when(1, SeccompCmpOp::Eq, libc::TIOCSTI)?]);
    let never = filter(rules, libc::EPERM, arch)?;
    for program in [&no_clone3, &never] {
        apply_filter_all_threads(program).map_err(ConfineError::Kernel)?;
    }
    Ok(())
}

fn filter(
    rules: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    errno: libc::c_int,
    arch: TargetArch,
) -> Result<BpfProgram, ConfineError> {
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(ConfineError::Architecture)?;
    filter.try_into().map_err(ConfineError::Architecture)
}

/// A rule on the lower half of an argument.
fn when(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompRule, ConfineError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value);
    SeccompRule::new(vec![condition.map_err(ConfineError::Architecture)?]).map_err(ConfineError::Architecture)
}
