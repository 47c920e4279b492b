//! What is said when librdkafka aborts the process.
//!
//! librdkafka 2.12.1 meets a record batch whose checksum is wrong with an assertion that fails (it skips to the wrong place
//! in the response): SIGABRT, and nobody learns where. Whoever reads with care leaves word here before.

use std::{
    ffi::c_int,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering},
    },
};

/// Longer words are cut off.
const BYTES_MAX: usize = 1024;

/// Two texts: one is written while the other is the one to be said.
static TEXTS: [[AtomicU8; BYTES_MAX]; 2] = [const { [const { AtomicU8::new(0) }; BYTES_MAX] }; 2];
/// Length and number of the one to be said: `length * 2 + number`.
static SAID: AtomicUsize = AtomicUsize::new(0);
static EXIT_CODE: AtomicI32 = AtomicI32::new(0);
/// One at a time: there is one process to end.
static ONE: Mutex<()> = Mutex::new(());

/// While it lives, an abort of the process writes the last text to stderr and ends it with an exit code.
#[derive(Debug)]
pub(crate) struct LastWords {
    before: libc::sighandler_t,
    _one: MutexGuard<'static, ()>,
}

impl LastWords {
    /// Nothing is said yet: an abort is an ordinary one until [`say`](Self::say).
    pub(crate) fn new(exit_code: u8) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        EXIT_CODE.store(exit_code.into(), Ordering::Relaxed);
        let handler: extern "C" fn(c_int) = on_abort;
        // SAFETY: the handler does only what a signal handler may: it reads atomics, and calls write and _exit.
        let before = unsafe { libc::signal(libc::SIGABRT, handler as *const () as libc::sighandler_t) };
        Self { before, _one: one }
    }

    /// What an abort says from now on: one line.
    pub(crate) fn say(&self, line: &str) {
        let number = (SAID.load(Ordering::Acquire) + 1) % 2;
        let bytes = line.bytes().take(BYTES_MAX - 1).chain([b'\n']);
        let mut length = 0;
        for (place, byte) in TEXTS[number].iter().zip(bytes) {
            place.store(byte, Ordering::Relaxed);
            length += 1;
        }
        SAID.store(length * 2 + number, Ordering::Release);
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        SAID.store(0, Ordering::Release);
        // SAFETY: what was there before.
        unsafe { libc::signal(libc::SIGABRT, self.before) };
    }
}

/// On the thread that aborts. Returning lets the abort go on as if nothing had been here.
extern "C" fn on_abort(_signal: c_int) {
    let said = SAID.load(Ordering::Acquire);
    let (length, text) = (said / 2, &TEXTS[said % 2]);
    if length == 0 {
        return;
    }
    let mut line = [0_u8; BYTES_MAX];
    for (byte, place) in line.iter_mut().zip(text).take(length) {
        *byte = place.load(Ordering::Relaxed);
    }
    // SAFETY: both may be called from a signal handler, and the bytes are this function's own.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length);
        libc::_exit(EXIT_CODE.load(Ordering::Relaxed));
    }
}
