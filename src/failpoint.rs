//! Named faults, for the tests. An ordinary build has none of them: [`ON`] is a constant, and all that asks for it goes away.
//!
//! The feature `failpoints` of the crate `fail` is turned on by the dev-dependencies alone, so the programs that `cargo test`
//! builds have them. A test names faults in the environment of the program that it starts:
//!
//! ```text
//! FAILPOINTS='commit::before_lock=6*off->return(kill);...'      the seventh time, SIGKILL
//! DIRECTSTREAM_MUTANT=no_offset_check                           a defect that the tests must catch
//! ```
//!
//! | action | what happens at the failpoint |
//! |---|---|
//! | `kill`, `stop` | SIGKILL or SIGSTOP to this process |
//! | `abort` | the process aborts |
//! | `panic` | the task panics, and what it was at is dropped half-way |
//! | `error` | the failpoint fails with [`Unavailable`](crate::ErrorKind::Unavailable) |
//! | `errno:NUMBER` | the failpoint fails with that error of the operating system, where it stands beside a call to it |
//! | `delay:MS` | so many milliseconds pass |
//!
//! Each that fires says so in a line on stderr: a test that injects a fault has to show that there was one.

use std::{
    error::Error as _,
    io::{self, Write},
    process::Command,
    sync::{Once, OnceLock},
    time::Duration,
};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::error::{Error, Result};

/// Whether faults are built in.
pub(crate) const ON: bool = fail::has_failpoints();

/// Takes the faults that the environment names, once: they are there until the process ends.
pub(crate) fn arm() {
    static ONCE: Once = Once::new();
    if ON {
        ONCE.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    }
}

/// A place where a test may want something to go wrong.
///
/// # Errors
/// The fault that was asked for.
#[inline(always)]
pub(crate) fn hit(name: &str) -> Result<()> {
    if ON { reached(name) } else { Ok(()) }
}

/// A place beside a call to the operating system, which a test may want to fail.
///
/// # Errors
/// The fault that was asked for, as the operating system would tell it.
#[inline(always)]
pub(crate) fn hit_os(name: &str) -> io::Result<()> {
    if !ON {
        return Ok(());
    }
    reached(name).map_err(|error| {
        let code = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
        code.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
    })
}

/// Whether this process is to have the defect of that name.
#[inline(always)]
pub(crate) fn mutant(name: &str) -> bool {
    ON && chosen_mutant() == Some(name)
}

/// A statement; for a mutant, with one part of it put in another's place.
#[inline(always)]
pub(crate) fn statement(statement: &'static str, name: &str, (part, other): (&str, &str)) -> SqlStr {
    if mutant(name) {
        return AssertSqlSafe(statement.replace(part, other)).into_sql_str();
    }
    statement.into_sql_str()
}

fn chosen_mutant() -> Option<&'static str> {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("DIRECTSTREAM_MUTANT").ok()).as_deref()
}

#[allow(unused_variables, reason = "without the feature the macro drops all that it is given")]
fn reached(name: &str) -> Result<()> {
    fail::fail_point!(name, |action| act(name, action.as_deref().unwrap_or("error")));
    Ok(())
}

#[allow(dead_code, reason = "without the feature the macro drops all that it is given")]
#[expect(clippy::panic, reason = "a test asked for it")]
fn act(name: &str, action: &str) -> Result<()> {
    // At once, for what comes next may be the end; and in one piece, for other lines may go to the same place.
    let _ = io::stderr().write_all(format!("failpoint {name}: {action}\n").as_bytes());
    let (word, number) = action.split_once(':').unwrap_or((action, ""));
    match word {
        "kill" => by_shell("kill -KILL $PPID"),
        // All threads go on until one of them has taken the signal, so it is not enough that it was sent.
        "stop" => by_shell(
            "kill -STOP $PPID; n=0; until grep -q ') T' /proc/$PPID/stat || [ $((n += 1)) = 1000 ]; do :; done",
        ),
        "abort" => std::process::abort(),
        "delay" => std::thread::sleep(Duration::from_millis(number.parse().unwrap_or(0))),
        "panic" => panic!("failpoint {name}"),
        "errno" => {
            let fault = io::Error::from_raw_os_error(number.parse().unwrap_or_default());
            return Err(Error::unavailable(format!("a fault was asked for failpoint={name}")).caused_by(fault));
        }
        _ => return Err(Error::unavailable(format!("a fault was asked for failpoint={name}"))),
    }
    Ok(())
}

/// Sends this process a signal: there is no safe call that does it.
#[allow(dead_code, reason = "without the feature the macro drops all that it is given")]
fn by_shell(script: &str) {
    let _ = Command::new("sh").args(["-c", script]).status();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn tests_have_failpoints_and_one_that_nobody_set_does_nothing() {
        const { assert!(ON) };
        hit("nowhere").unwrap();
        assert!(!mutant("nothing"));
    }

    #[test]
    fn an_error_that_was_asked_for_is_one_that_passes() {
        assert_eq!(act("here", "error").unwrap_err().kind(), ErrorKind::Unavailable);
        act("here", "delay:1").unwrap();
    }
}
