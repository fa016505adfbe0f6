//! The namespaces of one machine: what it has mounted, and a network that leads nowhere.
//!
//! Both are made on a thread of their own, which ends at once; open file descriptors keep
//! them. When the machine and its last process are gone, so are they, and nothing is left
//! mounted.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A directory of the machine, and where in the root it goes.
pub(crate) struct Bind {
    pub(crate) from: PathBuf,
    pub(crate) over: &'static str,
}

/// File descriptors that keep a machine's namespaces.
#[derive(Debug)]
pub(crate) struct Namespaces {
    mounts: File,
    offline: File,
}

impl Namespaces {
    /// Mounts `root` read-only with `binds` over it, in a mount namespace of its own; and
    /// makes a network namespace that has nothing but its own loopback.
    pub(crate) fn make(root: &Path, binds: &[Bind]) -> io::Result<Self> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    // SAFETY: unshares nothing that Rust's own I/O safety rests on (no file
                    // descriptor table), and only for this thread, which ends here.
                    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }?;
                    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
                    assemble(root, binds)?;
                    raise_loopback()?;
                    Ok(Self {
                        mounts: File::open("/proc/thread-self/ns/mnt")?,
                        offline: File::open("/proc/thread-self/ns/net")?,
                    })
                })
                .join()
                .expect("the thread that makes a machine's namespaces panicked")
        })
    }

    /// The mount namespace, as a path that `nsenter` in a child process can open.
    pub(crate) fn mounts(&self) -> String {
        path_of(&self.mounts)
    }

    /// The network namespace without a network, likewise.
    pub(crate) fn offline(&self) -> String {
        path_of(&self.offline)
    }
}

fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

fn assemble(root: &Path, binds: &[Bind]) -> io::Result<()> {
    mount_bind(root, root)?;
    mount_remount(root, MountFlags::BIND | MountFlags::RDONLY, "")?;
    for bind in binds {
        mount_bind(&bind.from, root.join(bind.over))?;
    }
    mount_bind_recursive("/dev", root.join("dev"))?;
    mount("tmpfs", root.join("run"), "tmpfs", MountFlags::NOSUID, c"mode=755")?;
    Ok(())
}

/// `ip link set lo up`, without needing `ip`.
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call; the socket is open.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
