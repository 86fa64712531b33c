//! Interrupts each thread by its CPU time, and records its stack.
//!
//! The kernel has a clock of each thread's CPU time, and timers on it (timer_create(2)). Their signal, SIGPROF, goes to
//! that very thread, and carries its ID. The handler writes the stack into a slot of a static table, and the thread of
//! the profile empties the slots. setitimer(2) has one timer for the whole process: with many busy cores it fires more
//! often than the kernel looks, and loses samples.
//!
//! Why reading the stack is safe: see [`walk`].

use std::ffi::{c_int, c_void};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use super::stacks::Thread;
use crate::limits::{PROFILE_FRAMES_MAX, PROFILE_SLOTS};

/// A place for one sample. Its fields are atomic because a handler and the thread of the profile share it. Which of
/// them owns it, `state` tells.
struct Slot {
    state: AtomicU8,
    thread: AtomicI32,
    depth: AtomicUsize,
    frames: [AtomicUsize; PROFILE_FRAMES_MAX],
}

const FREE: u8 = 0;
const WRITING: u8 = 1;
const FULL: u8 = 2;

/// Static, so that a late signal finds it whatever has ended. Its memory is used from the first profile on.
static SLOTS: [Slot; PROFILE_SLOTS] = [const {
    Slot {
        state: AtomicU8::new(FREE),
        thread: AtomicI32::new(0),
        depth: AtomicUsize::new(0),
        frames: [const { AtomicUsize::new(0) }; PROFILE_FRAMES_MAX],
    }
}; PROFILE_SLOTS];
/// The next slot to try.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Samples that found no free slot.
static LOST: AtomicU64 = AtomicU64::new(0);
/// Whether samples are wanted.
static IS_ACTIVE: AtomicBool = AtomicBool::new(false);
/// The ID of the main thread, and the end of its stack; 0 if unknown.
static MAIN_THREAD: AtomicI32 = AtomicI32::new(0);
static MAIN_STACK_END: AtomicUsize = AtomicUsize::new(0);

/// The timers of a profile. There must be one sampler at a time.
pub(super) struct Sampler {
    timers: Vec<(Thread, Timer)>,
    hertz: u32,
    previous: libc::sigaction,
}

impl Sampler {
    /// Starts to sample all threads, `hertz` times in each second of their CPU time.
    ///
    /// # Errors
    /// If the system refuses the handler, or all timers.
    pub(super) fn start(hertz: u32) -> io::Result<Self> {
        MAIN_THREAD.store(rustix::process::getpid().as_raw_nonzero().get(), Ordering::Relaxed);
        MAIN_STACK_END.store(main_stack_end().unwrap_or_default(), Ordering::Relaxed);
        let previous = install_handler()?;
        let mut sampler = Self { timers: Vec::new(), hertz, previous };
        // What a signal of an earlier profile left behind.
        take_full(|_, _| ());
        LOST.store(0, Ordering::Relaxed);
        IS_ACTIVE.store(true, Ordering::Release);
        let refused = sampler.watch_new_threads();
        match refused {
            error if sampler.timers.is_empty() => {
                Err(error.unwrap_or_else(|| io::Error::other("the threads of the process cannot be listed")))
            }
            _ => Ok(sampler),
        }
    }

    /// Starts to sample threads that are new. Returns why one of them cannot be: it has ended, as a rule.
    pub(super) fn watch_new_threads(&mut self) -> Option<io::Error> {
        let tasks = fs::read_dir("/proc/self/task").ok()?;
        let mut refused = None;
        for task in tasks.flatten() {
            let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.timers.iter().any(|(thread, _)| thread.id == id) {
                continue;
            }
            match Timer::start(id, self.hertz) {
                Ok(timer) => {
                    let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                    self.timers.push((Thread { id, name: name.trim().into() }, timer));
                }
                Err(error) => refused = Some(error),
            }
        }
        refused
    }

    /// Passes on the samples that have been taken, and forgets them.
    pub(super) fn drain(&self, mut take: impl FnMut(&Thread, &[usize])) {
        take_full(|id, frames| {
            if let Some((thread, _)) = self.timers.iter().find(|(thread, _)| thread.id == id) {
                take(thread, frames);
            }
        });
    }

    /// Ends the timers, passes on the last samples, and returns how many were lost.
    pub(super) fn stop(mut self, take: impl FnMut(&Thread, &[usize])) -> u64 {
        IS_ACTIVE.store(false, Ordering::Release);
        self.timers.iter_mut().for_each(|(_, timer)| timer.end());
        self.drain(take);
        LOST.load(Ordering::Relaxed)
    }
}

impl Drop for Sampler {
    /// A signal that is still pending then goes to the handler from before, which takes it as one without a meaning.
    fn drop(&mut self) {
        IS_ACTIVE.store(false, Ordering::Release);
        self.timers.clear();
        // SAFETY: `previous` is what sigaction(2) has returned for this signal.
        unsafe { libc::sigaction(libc::SIGPROF, &raw const self.previous, ptr::null_mut()) };
    }
}

/// A timer on the CPU time of one thread.
struct Timer(Option<libc::timer_t>);

impl Timer {
    fn start(thread: i32, hertz: u32) -> io::Result<Self> {
        // SAFETY: all of its fields are numbers and pointers, for which zero is valid.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_notify_thread_id = thread;
        event.sigev_value = libc::sigval { sival_ptr: ptr::without_provenance_mut(thread as usize) };
        // The clock of a thread's CPU time, as `pthread_getcpuclockid` of the C libraries makes it.
        let clock = (!thread << 3) | 6;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are to values of their types.
        if unsafe { libc::timer_create(clock, &raw mut event, &raw mut timer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let this = Self(Some(timer));
        let every = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 / i64::from(hertz) };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: the timer exists, and the other pointers are to values of their types or null, as allowed.
        if unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(this)
    }

    fn end(&mut self) {
        if let Some(timer) = self.0.take() {
            // SAFETY: the timer exists, and it is deleted once.
            unsafe { libc::timer_delete(timer) };
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Passes on what is in full slots, and frees them.
fn take_full(mut take: impl FnMut(i32, &[usize])) {
    let mut frames = [0; PROFILE_FRAMES_MAX];
    for slot in &SLOTS {
        if slot.state.load(Ordering::Acquire) != FULL {
            continue;
        }
        let depth = slot.depth.load(Ordering::Relaxed).min(PROFILE_FRAMES_MAX);
        for (frame, from) in frames.iter_mut().zip(&slot.frames).take(depth) {
            *frame = from.load(Ordering::Relaxed);
        }
        let thread = slot.thread.load(Ordering::Relaxed);
        slot.state.store(FREE, Ordering::Release);
        take(thread, frames.get(..depth).unwrap_or_default());
    }
}

/// Where the main thread's stack ends.
fn main_stack_end() -> Option<usize> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    usize::from_str_radix(line.split(['-', ' ']).nth(1)?, 16).ok()
}

/// Returns the action from before.
fn install_handler() -> io::Result<libc::sigaction> {
    // SAFETY: all of its fields are numbers, pointers and arrays of numbers, for which zero is valid.
    let (mut action, mut previous): (libc::sigaction, libc::sigaction) =
        unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    action.sa_sigaction = handler as usize;
    // Not on the alternative stack: it is small, and meant for a stack overflow.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: both pointers are to values of their types, and the handler has the signature of SA_SIGINFO. What it does
    // is safe in a handler: see `on_signal`.
    let result = unsafe { libc::sigaction(libc::SIGPROF, &raw const action, &raw mut previous) };
    if result == 0 { Ok(previous) } else { Err(io::Error::last_os_error()) }
}

/// Records where its thread was. It may interrupt anything, so it only uses atomics without locks, its stack, and one
/// system call that cannot fail here, which leaves errno as it is.
extern "C" fn on_signal(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both, as SA_SIGINFO asks for, and they are valid until the handler returns.
    let (info, context) = unsafe { (&*info, &*context.cast::<libc::ucontext_t>()) };
    if info.si_code != libc::SI_TIMER || !IS_ACTIVE.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: a signal of a timer has the value of its timer.
    let value = unsafe { info.si_value() }.sival_ptr.addr();
    let Ok(thread) = i32::try_from(value) else { return };
    let slot = &SLOTS[NEXT.fetch_add(1, Ordering::Relaxed) % PROFILE_SLOTS];
    if slot.state.compare_exchange(FREE, WRITING, Ordering::Acquire, Ordering::Relaxed).is_err() {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let registers = Registers::of(context);
    let mut depth = 0;
    let push = |address| {
        if let Some(frame) = slot.frames.get(depth) {
            frame.store(address, Ordering::Relaxed);
            depth += 1;
        }
        depth < PROFILE_FRAMES_MAX
    };
    walk(&registers, stack_end(thread, registers.stack), push);
    slot.thread.store(thread, Ordering::Relaxed);
    slot.depth.store(depth, Ordering::Relaxed);
    slot.state.store(FULL, Ordering::Release);
}

/// The registers of the interrupted code.
struct Registers {
    /// The next instruction.
    instruction: usize,
    stack: usize,
    frame: usize,
}

impl Registers {
    #[cfg(target_arch = "x86_64")]
    #[expect(clippy::cast_possible_truncation, reason = "registers have the size of addresses")]
    fn of(context: &libc::ucontext_t) -> Self {
        let register = |at: c_int| context.uc_mcontext.gregs[at as usize] as usize;
        Self {
            instruction: register(libc::REG_RIP),
            stack: register(libc::REG_RSP),
            frame: register(libc::REG_RBP),
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[expect(clippy::cast_possible_truncation, reason = "registers have the size of addresses")]
    fn of(context: &libc::ucontext_t) -> Self {
        let context = &context.uc_mcontext;
        Self {
            instruction: context.pc as usize,
            stack: context.sp as usize,
            frame: context.regs[29] as usize,
        }
    }

    /// Where registers are not known, so are stacks.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn of(_: &libc::ucontext_t) -> Self {
        Self { instruction: 0, stack: 0, frame: 0 }
    }
}

/// The end of this thread's stack, which `stack` points into. Everything between is mapped for as long as the thread
/// runs. 0 if that is not certain.
#[expect(clippy::cast_possible_truncation, reason = "the ID of a thread is an address")]
fn stack_end(thread: i32, stack: usize) -> usize {
    // SAFETY: zero is valid for its fields; null asks for the current state only.
    let mut alternative: libc::stack_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the pointer is to a value of its type.
    let asked = unsafe { libc::sigaltstack(ptr::null(), &raw mut alternative) };
    // Another handler may have been interrupted on a stack of its own.
    if asked != 0 || alternative.ss_flags & libc::SS_ONSTACK != 0 {
        return 0;
    }
    if thread == MAIN_THREAD.load(Ordering::Relaxed) {
        return MAIN_STACK_END.load(Ordering::Relaxed);
    }
    // The C libraries keep what they know about a thread at the end of its stack, in the same mapping.
    // SAFETY: it only reads a register.
    let own = unsafe { libc::pthread_self() } as usize;
    if own > stack { own } else { 0 }
}

/// Passes the addresses of a stack to `push`, the innermost first, until it returns false.
///
/// A frame pointer is only followed within the thread's own stack, above the stack pointer and above the frame before.
/// That memory is mapped whatever other threads do, so a register that holds something else, in code without frame
/// pointers, leads to wrong addresses at worst. And the walk ends, because it only goes up.
fn walk(registers: &Registers, stack_end: usize, mut push: impl FnMut(usize) -> bool) {
    const WORD: usize = size_of::<usize>();
    let mut from = registers.stack;
    let mut frame = registers.frame;
    let mut goes_on = push(registers.instruction);
    while goes_on {
        let is_inside =
            frame != 0 && frame >= from && frame.checked_add(2 * WORD).is_some_and(|end| end <= stack_end);
        if !is_inside || !frame.is_multiple_of(WORD) {
            return;
        }
        let at: *const usize = ptr::with_exposed_provenance(frame);
        // SAFETY: both words are aligned and lie between the stack pointer and the end of this thread's stack, which is
        // mapped. The code that owns them is interrupted.
        let (next, returns_to) = unsafe { (at.read_volatile(), at.add(1).read_volatile()) };
        if returns_to == 0 {
            return;
        }
        goes_on = push(returns_to);
        from = frame + 2 * WORD;
        frame = next;
    }
}
