//! The server under a clock of its own: whole days of trouble in seconds, and the same day again from the same seed.
//!
//! Constraints that shaped it:
//! - What is simulated must be what ships: the cores with their lanes, pools, permits, spool, receipts and verdicts, on
//!   the runtime that they have, down to the calls of the C library. These alone are others (`calls.rs`): the clock
//!   leaps when nothing is left to do, and a TCP socket is a Unix socket.
//! - A failure must be found again. So all of it runs in one thread, and whatever is random comes from the seed. The
//!   program runs itself again for each seed, without random addresses: hash maps draw their order from these, too.
//! - A kill ends every task at once, in the midst of whatever it does. The runtime is dropped, and with it all of its
//!   tasks; senders and upstream go on in the next one. A *life* is what is between.
//!
//! ```text
//! scenario ─► play: lives, events ─► senders ─► server: cores, desk of the spool ─► upstream
//!   (seed)        (what happens)        │              │                              │
//!                                    journal       budgets, ledger                 account
//!                                       └──────────────┴────────► verdict ◄───────────┘
//! ```
//!
//! Only epoll can be simulated, as a ring's completions are the kernel's own. What lies above the driver is the same.

mod calls;
mod play;
mod scenario;
mod sender;
mod server;
mod upstream;
mod verdict;
mod wire;
mod world;

pub use play::play;
pub use scenario::{Crowd, Kind, Scenario, SpoolHabits};
pub use verdict::Verdict;
