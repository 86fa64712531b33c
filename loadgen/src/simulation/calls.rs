//! The C library's functions that tell the time, wait, and open sockets, for a simulation: the linker prefers these to
//! the C library's own, for all of this program.
//!
//! Constraints that shaped it:
//! - Server, runtime and standard library stay as they are: what a simulation runs is what ships. So the seam is where
//!   all of them meet, below.
//! - A thread that simulates nothing must not notice. Each function first asks whether its thread does
//!   ([`is_simulated`]), and hands over to the kernel if not.
//! - Nothing here may allocate before it knows that, as an allocator asks for the time, too.
//!
//! A TCP socket is a Unix socket with an abstract name here: all of what one end writes is there for the other at once,
//! with no other thread in between. [`World`] decides what is seen of it, and when.
//!
//! Rustix makes its system calls itself: for shutting down, peeking and polling, all of which a Unix socket can.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the results of system calls have the types that they return"
)]
#![expect(unreachable_pub, reason = "the linker sees them, and no module")]

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::hint::black_box;
use std::mem::{size_of, transmute};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{clockid_t, epoll_event, iovec, sockaddr, sockaddr_in, sockaddr_un, socklen_t, ssize_t, timespec};

use super::world::{self, World, is_simulated};

/// Makes sure that the linker has seen these functions, and used them.
pub(super) fn link() {
    black_box([
        clock_gettime as *const () as usize,
        epoll_wait as *const () as usize,
        getrandom as *const () as usize,
        socket as *const () as usize,
        bind as *const () as usize,
        connect as *const () as usize,
        accept4 as *const () as usize,
        getpeername as *const () as usize,
        getsockname as *const () as usize,
        setsockopt as *const () as usize,
        close as *const () as usize,
        fcntl as *const () as usize,
        recv as *const () as usize,
        send as *const () as usize,
        writev as *const () as usize,
    ]);
}

type ClockGettime = unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int;

/// The C library's own, which needs no system call. 0 before it was looked for, 1 if there is none.
static CLOCK_GETTIME: AtomicUsize = AtomicUsize::new(0);

/// The real time of a clock.
///
/// # Safety
/// `into` must be valid for a write, as for the C library's function.
unsafe fn real_time(clock: clockid_t, into: *mut timespec) -> c_int {
    let mut known = CLOCK_GETTIME.load(Ordering::Relaxed);
    if known == 0 {
        let name: *const c_char = c"clock_gettime".as_ptr();
        // SAFETY: the name is a C string. The lookup has no other condition.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name) } as usize;
        known = found.max(1);
        CLOCK_GETTIME.store(known, Ordering::Relaxed);
    }
    if known == 1 {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) } as c_int;
    }
    // SAFETY: this is the address of the C library's function of that name, which has this type.
    let real: ClockGettime = unsafe { transmute(known) };
    // SAFETY: the caller's promise.
    unsafe { real(clock, into) }
}

/// Overrides `clock_gettime(2)`: the world's clock, but for those that count CPU time.
///
/// # Safety
/// As the C library's: `into` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, into: *mut timespec) -> c_int {
    let is_cpu_time = matches!(clock, libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID);
    if is_cpu_time || !is_simulated() {
        // SAFETY: the caller's promise.
        return unsafe { real_time(clock, into) };
    }
    let is_date = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
    let now = world::now() + if is_date { world::EPOCH } else { world::BOOT };
    let (seconds, nanos) = (now.as_secs() as libc::time_t, libc::c_long::from(now.subsec_nanos() as i32));
    // SAFETY: the caller's promise.
    unsafe { into.write(timespec { tv_sec: seconds, tv_nsec: nanos }) };
    0
}

/// Overrides `epoll_wait(2)`: what is ready, or time passes.
///
/// # Safety
/// As the C library's: `into` must be valid for writes of `most` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    into: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    if !is_simulated() {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_epoll_wait, epoll, into, most, timeout) } as c_int;
    }
    let room = usize::try_from(most).unwrap_or_default();
    let ready = world::wait(room, u64::try_from(timeout).ok(), |room| {
        let mut events = [epoll_event { events: 0, u64: 0 }; 64];
        let most = room.min(events.len());
        // SAFETY: the array has room for so many events.
        let found = unsafe { libc::syscall(libc::SYS_epoll_wait, epoll, events.as_mut_ptr(), most, 0) };
        events.get(..usize::try_from(found).unwrap_or_default()).unwrap_or_default().to_vec()
    });
    let ready = ready.get(..room).unwrap_or(&ready);
    for (place, event) in ready.iter().enumerate() {
        // SAFETY: by the caller's promise there is room for `most` events. No more than that are left, so `place` is
        // below.
        unsafe { into.add(place).write(*event) };
    }
    c_int::try_from(ready.len()).unwrap_or(c_int::MAX)
}

/// Overrides `getrandom(2)`: the world's own randomness.
///
/// # Safety
/// As the C library's: `into` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(into: *mut c_void, length: usize, flags: c_uint) -> ssize_t {
    if !is_simulated() {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_getrandom, into, length, flags) } as ssize_t;
    }
    for place in 0..length {
        let byte = World::with(|world| world.random.below(256)) as u8;
        // SAFETY: by the caller's promise there is room for `length` bytes, and `place` is below that.
        unsafe { into.cast::<u8>().add(place).write(byte) };
    }
    length as ssize_t
}

/// Overrides `socket(2)`: one for TCP over IPv4 becomes a Unix socket.
///
/// # Safety
/// None; the C library's is declared so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let is_tcp = domain == libc::AF_INET && kind & 0xf == libc::SOCK_STREAM;
    let (domain, protocol) = if is_simulated() && is_tcp { (libc::AF_UNIX, 0) } else { (domain, protocol) };
    // SAFETY: the call has no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_socket, domain, kind, protocol) } as c_int;
    if is_simulated() && is_tcp && fd >= 0 {
        World::with(|world| world.sockets.opened(fd));
    }
    fd
}

/// Reads an address, if it is one of IPv4.
///
/// # Safety
/// `address` must be valid for reads of `length` bytes.
unsafe fn read_address(address: *const sockaddr, length: socklen_t) -> Option<SocketAddrV4> {
    if (length as usize) < size_of::<sockaddr_in>() {
        return None;
    }
    // SAFETY: there are as many bytes, by the check above and the caller's promise. Any bytes are a `sockaddr_in`.
    let address = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
    (c_int::from(address.sin_family) == libc::AF_INET).then(|| {
        SocketAddrV4::new(
            Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)),
            u16::from_be(address.sin_port),
        )
    })
}

/// Writes an address as the kernel does: as much as there is room for, and its whole length.
///
/// # Safety
/// `length` must be valid for a read and a write, and `into` for writes of as many bytes as it says; or both null.
unsafe fn write_address(address: SocketAddrV4, into: *mut sockaddr, length: *mut socklen_t) {
    if into.is_null() || length.is_null() {
        return;
    }
    // SAFETY: a `sockaddr_in` may be all zeros.
    let mut whole: sockaddr_in = unsafe { std::mem::zeroed() };
    whole.sin_family = libc::AF_INET as libc::sa_family_t;
    whole.sin_port = address.port().to_be();
    whole.sin_addr.s_addr = u32::from(*address.ip()).to_be();
    // SAFETY: the caller's promise. No more than there is room for, and no more than `whole` has.
    unsafe {
        let room = (length.read() as usize).min(size_of::<sockaddr_in>());
        into.cast::<u8>().copy_from(std::ptr::from_ref(&whole).cast(), room);
        length.write(size_of::<sockaddr_in>() as socklen_t);
    }
}

/// The abstract name of a Unix socket that stands for an address, and its length. No two processes share one.
fn name_of(address: SocketAddrV4) -> (sockaddr_un, socklen_t) {
    let text = format!("\0tenantry-simulation-{}-{address}", std::process::id());
    // SAFETY: a `sockaddr_un` may be all zeros.
    let mut name: sockaddr_un = unsafe { std::mem::zeroed() };
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, byte) in name.sun_path.iter_mut().zip(text.bytes()) {
        *place = byte as c_char;
    }
    (name, (size_of::<libc::sa_family_t>() + text.len()) as socklen_t)
}

/// Calls `bind` or `connect` with the name that stands for `address`.
fn call_by_name(call: libc::c_long, fd: c_int, address: SocketAddrV4) -> c_int {
    let (name, length) = name_of(address);
    // SAFETY: the name is valid for so many bytes while the call lasts.
    unsafe { libc::syscall(call, fd, std::ptr::from_ref(&name), length) as c_int }
}

/// Overrides `bind(2)`.
///
/// # Safety
/// As the C library's: `address` must be valid for reads of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    match is_simulated().then(|| unsafe { read_address(address, length) }).flatten() {
        Some(address) => {
            World::with(|world| world.sockets.names(fd, address));
            call_by_name(libc::SYS_bind, fd, address)
        }
        // SAFETY: the caller's promise.
        None => unsafe { libc::syscall(libc::SYS_bind, fd, address, length) as c_int },
    }
}

/// Overrides `connect(2)`. It succeeds or fails at once.
///
/// # Safety
/// As the C library's: `address` must be valid for reads of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    match is_simulated().then(|| unsafe { read_address(address, length) }).flatten() {
        Some(address) => {
            World::with(|world| world.sockets.names(fd, address));
            if World::with(|world| world.sockets.is_refused(address)) {
                // SAFETY: the place of this thread's error is valid for as long as the thread is.
                unsafe { libc::__errno_location().write(libc::ECONNREFUSED) };
                return -1;
            }
            call_by_name(libc::SYS_connect, fd, address)
        }
        // SAFETY: the caller's promise.
        None => unsafe { libc::syscall(libc::SYS_connect, fd, address, length) as c_int },
    }
}

/// Overrides `accept4(2)`. The peer's address is another for each connection.
///
/// # Safety
/// As the C library's: `length` must be valid for a read and a write, and `into` for writes of as many bytes as it
/// says; or both null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    into: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    if !is_simulated() || !World::with(|world| world.sockets.is_ours(fd)) {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_accept4, fd, into, length, flags) as c_int };
    }
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: the call may have no pointers.
    let accepted = unsafe { libc::syscall(libc::SYS_accept4, fd, nothing, nothing, flags) } as c_int;
    if accepted >= 0 {
        let peer = World::with(|world| Some(world.sockets.accepted(accepted)));
        // SAFETY: the caller's promise.
        peer.into_iter().for_each(|peer| unsafe { write_address(peer, into, length) });
    }
    accepted
}

/// Overrides `getpeername(2)`.
///
/// # Safety
/// As the C library's: `length` must be valid for a read and a write, and `into` for writes of as many bytes as it
/// says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(fd: c_int, into: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { name(libc::SYS_getpeername, fd, into, length) }
}

/// Overrides `getsockname(2)`.
///
/// # Safety
/// As [`getpeername`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(fd: c_int, into: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { name(libc::SYS_getsockname, fd, into, length) }
}

/// The address of a simulated socket: the one that is known, of whichever end.
///
/// # Safety
/// As [`getpeername`].
unsafe fn name(call: libc::c_long, fd: c_int, into: *mut sockaddr, length: *mut socklen_t) -> c_int {
    match is_simulated().then(|| World::with(|world| world.sockets.address(fd))).flatten() {
        Some(address) => {
            // SAFETY: the caller's promise.
            unsafe { write_address(address, into, length) };
            0
        }
        // SAFETY: the caller's promise.
        None => unsafe { libc::syscall(call, fd, into, length) as c_int },
    }
}

/// Overrides `setsockopt(2)`: what is set of TCP has no counterpart.
///
/// # Safety
/// As the C library's: `value` must be valid for reads of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if is_simulated() && World::with(|world| world.sockets.is_ours(fd)) {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_setsockopt, fd, level, option, value, length) as c_int }
}

/// Overrides `close(2)`.
///
/// # Safety
/// As the C library's: nobody may use the descriptor any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if is_simulated() {
        World::with(|world| world.sockets.closed(fd));
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// Overrides `fcntl(2)`: a duplicate of a socket is a socket of ours, too. The C library's has a third argument or
/// none, and the platforms that this runs on pass one in the same place either way.
///
/// # Safety
/// As the C library's, by the command.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) as c_int };
    if command == libc::F_DUPFD_CLOEXEC && result >= 0 && is_simulated() {
        World::with(|world| world.sockets.duplicated(fd, result));
    }
    result
}

/// Overrides `recv(2)`: now and then less is there than was sent.
///
/// # Safety
/// As the C library's: `into` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(fd: c_int, into: *mut c_void, length: usize, flags: c_int) -> ssize_t {
    let length = if is_simulated() { world::cut(fd, length) } else { length };
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: the caller's promise; `length` is no larger than it was.
    unsafe { libc::syscall(libc::SYS_recvfrom, fd, into, length, flags, nothing, nothing) as ssize_t }
}

/// Overrides `send(2)`: now and then there is less room.
///
/// # Safety
/// As the C library's: `from` must be valid for reads of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(fd: c_int, from: *const c_void, length: usize, flags: c_int) -> ssize_t {
    let length = if is_simulated() { world::cut(fd, length) } else { length };
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: the caller's promise; `length` is no larger than it was.
    unsafe { libc::syscall(libc::SYS_sendto, fd, from, length, flags, nothing, 0) as ssize_t }
}

/// Overrides `writev(2)`: now and then there is less room.
///
/// # Safety
/// As the C library's: `slices` must be valid for reads of `count` slices, and each of them for reads of its bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, slices: *const iovec, count: c_int) -> ssize_t {
    if is_simulated() && count > 0 {
        // SAFETY: the caller's promise: there is one at least.
        let first = unsafe { slices.read() };
        let length = world::cut(fd, first.iov_len);
        if length < first.iov_len {
            // SAFETY: the caller's promise; `length` is no larger than the slice.
            return unsafe { libc::syscall(libc::SYS_write, fd, first.iov_base, length) as ssize_t };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_writev, fd, slices, count) as ssize_t }
}

/// Shuts a socket down, for both ends.
pub(super) fn shut_down(fd: c_int) {
    // SAFETY: the call has no pointers. A descriptor that is closed is an error, which says the same.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Whether neither end has closed or shut down.
pub(super) fn is_open(fd: c_int) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: there is one of them.
    let found = unsafe { libc::poll(&mut poll, 1, 0) };
    found == 0
}

/// The descriptors that this process has.
pub(super) fn descriptors() -> BTreeSet<c_int> {
    let all = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut all: BTreeSet<c_int> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The one that these were read from is among them, and closed by now.
    // SAFETY: the call has no pointers.
    all.retain(|fd| unsafe { libc::syscall(libc::SYS_fcntl, *fd, libc::F_GETFD) } >= 0);
    all
}

/// Closes all descriptors but these. A runtime that ends leaks those of the tasks that it had.
pub(super) fn close_all_but(kept: &BTreeSet<c_int>) {
    for fd in descriptors().difference(kept) {
        // SAFETY: the runtime that had them is gone with its tasks, and nobody else opens any here.
        unsafe { libc::syscall(libc::SYS_close, *fd) };
    }
}
