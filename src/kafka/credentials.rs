//! SASL's user and password where a file holds them: looked at while a client lives, for the connections it makes from then on.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use super::ffi::{CallError, Client};
use crate::{
    error::{Error, Result},
    failpoint,
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file with one user or password in it is not longer.
const FILE_BYTES_MAX: u64 = 64 << 10;

const USERNAME: &str = "sasl.username";
const PASSWORD: &str = "sasl.password";
/// The keys that name a file, each with librdkafka's key whose value stands in it.
pub(super) const IN_FILES: [(&str, &str); 2] = [("sasl.username.file", USERNAME), ("sasl.password.file", PASSWORD)];

/// A client that can be told what to log in with from now on. Its open connections stay.
pub(super) trait LogsIn: Send + Sync + 'static {
    fn log_in_as(&self, username: &str, password: &str) -> Result<(), CallError>;
}

impl LogsIn for Client {
    fn log_in_as(&self, username: &str, password: &str) -> Result<(), CallError> {
        self.set_credentials(username, password)
    }
}

/// What one client logs in with, where a part of it stands in a file.
///
/// Two files cannot be read at one moment, nor one that is just being written. So a pair may be read that never belonged
/// together, or half a password. The brokers refuse it, the client tries again as it does with any broker that is away, and the
/// next look, a second later, finds the rest.
pub(crate) struct Credentials {
    /// What the client is for, in the log.
    client: &'static str,
    username: Source,
    password: Source,
    /// As they were read last.
    last: [String; 2],
    /// It was said that they cannot be read.
    unreadable: bool,
}

/// Where a part of it comes from.
enum Source {
    /// The properties, for good; empty if it is not there either, of which librdkafka says what it thinks.
    Given(String),
    /// A file, as it is now.
    File(PathBuf),
}

impl Credentials {
    /// What a new client of these properties logs in with; `None` where no file has a part in it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) while a file cannot be read.
    pub(super) fn of(properties: &BTreeMap<String, String>, client: &'static str) -> Result<Option<Self>> {
        if !IN_FILES.iter().any(|(key, _)| properties.contains_key(*key)) {
            return Ok(None);
        }
        let [username, password] = IN_FILES.map(|(key, value)| match properties.get(key) {
            Some(path) => Source::File(PathBuf::from(path)),
            None => Source::Given(properties.get(value).cloned().unwrap_or_default()),
        });
        let mut credentials = Self { client, username, password, last: Default::default(), unreadable: false };
        credentials.last = credentials
            .read()
            .map_err(|why| Error::unavailable(format!("cannot read the kafka credentials: {why}")))?;
        Ok(Some(credentials))
    }

    /// librdkafka's keys whose values stand in files, as they were read last.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let parts = [(USERNAME, &self.username), (PASSWORD, &self.password)].into_iter().zip(&self.last);
        parts.filter(|((_, source), _)| matches!(source, Source::File(_))).map(|((key, _), value)| (key, value.clone()))
    }

    fn look_again_and_again(mut self, client: &Weak<impl LogsIn>) {
        loop {
            thread::sleep(LOOK_EVERY);
            let Some(client) = client.upgrade() else { return };
            if !failpoint::mutant("credentials_never_renewed") {
                self.look(&*client);
            }
        }
    }

    /// Looks at the files once; what has changed is told to the client.
    fn look(&mut self, client: &impl LogsIn) {
        let read = match self.read() {
            Ok(read) => read,
            Err(why) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    tracing::warn!(client = self.client, "the kafka credentials of before are kept: {why}");
                }
                return;
            }
        };
        self.unreadable = false;
        if read == self.last {
            return;
        }
        let [username, password] = &read;
        match client.log_in_as(username, password) {
            Ok(()) => {
                tracing::info!(client = self.client, "new kafka credentials are read, for connections to come");
                self.last = read;
            }
            Err(error) => tracing::warn!(client = self.client, %error, "new kafka credentials are not taken"),
        }
    }

    fn read(&self) -> Result<[String; 2], String> {
        Ok([self.username.read()?, self.password.read()?])
    }
}

/// Looks at the files as long as the client lives, on a thread of its own: nobody knows when a client connects again, and one that
/// has nothing to do does so, too.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the system gives no thread.
pub(super) fn keep(credentials: Option<Credentials>, client: &Arc<impl LogsIn>) -> Result<()> {
    let Some(credentials) = credentials else { return Ok(()) };
    let client = Arc::downgrade(client);
    let thread = thread::Builder::new().name("credentials".to_owned());
    let started = thread.spawn(move || credentials.look_again_and_again(&client));
    started.map(drop).map_err(|error| Error::internal("no thread for a client's credentials").caused_by(error))
}

impl fmt::Debug for Credentials {
    /// Without what is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Source {
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Given(text) => Ok(text.clone()),
            Self::File(path) => value_in(path).map_err(|why| format!("{why} file={}", path.display())),
        }
    }
}

/// The one line that stands in a file, or why none does.
pub(crate) fn value_in(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot read the file: {}", error.kind());
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("not a file with one line in it".to_owned());
    }
    let mut text = String::new();
    let bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    // Editors end a line; everything else, blanks as well, may be meant.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.as_str() {
        "" => Err("the file is empty".to_owned()),
        line if line.contains(['\n', '\r', '\0']) || bytes as u64 > FILE_BYTES_MAX => {
            Err("not a file with one line in it".to_owned())
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::*;
    use crate::{
        clock::{Clock as _, SystemClock},
        kafka::Code,
    };

    /// A client that takes what it is told, or does not.
    #[derive(Default)]
    struct Told {
        refuses: AtomicBool,
        told: Mutex<Vec<String>>,
    }

    impl LogsIn for Told {
        fn log_in_as(&self, username: &str, password: &str) -> Result<(), CallError> {
            self.told.lock().unwrap().push(format!("{username}:{password}"));
            let refused = CallError { code: Code::INVALID_ARG, text: String::new() };
            if self.refuses.load(Ordering::Relaxed) { Err(refused) } else { Ok(()) }
        }
    }

    fn of(keys: &[(&str, &str)]) -> Credentials {
        let properties = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Credentials::of(&properties, "test").unwrap().unwrap()
    }

    #[test]
    fn what_changes_in_the_files_is_told_once_and_what_cannot_be_read_never() {
        let folder = tempfile::tempdir().unwrap();
        let [user, password] = ["user", "password"].map(|name| folder.path().join(name));
        let write = |path: &Path, text: &str| fs::write(path, text).unwrap();
        write(&user, "one");
        write(&password, "first\n");
        let keys = [("sasl.username.file", user.to_str().unwrap()), ("sasl.password.file", password.to_str().unwrap())];
        let mut credentials = of(&keys);
        let settings = |credentials: &Credentials| credentials.settings().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(settings(&credentials), ["one", "first"]);
        let client = Told::default();
        let mut told = |taken: bool| {
            client.refuses.store(!taken, Ordering::Relaxed);
            credentials.look(&client);
            std::mem::take(&mut *client.told.lock().unwrap())
        };
        assert!(told(true).is_empty());
        write(&password, "second");
        assert_eq!(told(false), ["one:second"]);
        assert_eq!(told(true), ["one:second"], "what was not taken is told again");
        assert!(told(true).is_empty());
        // While one of them is away or empty, what was there before stays.
        write(&password, "");
        write(&user, "two");
        assert!(told(true).is_empty());
        fs::remove_file(&password).unwrap();
        assert!(told(true).is_empty());
        write(&password, "third\r\n");
        assert_eq!(told(true), ["two:third"]);
        assert_eq!(settings(&credentials), ["two", "third"]);
    }

    #[test]
    fn files_are_looked_at_while_the_client_lives_and_not_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "first").unwrap();
        let client = Arc::new(Told::default());
        let keys = [("sasl.username", "orders"), ("sasl.password.file", path.to_str().unwrap())];
        keep(Some(of(&keys)), &client).unwrap();
        fs::write(&path, "second").unwrap();
        let clock = SystemClock::new();
        let in_time = || assert!(clock.monotonic() < Duration::from_secs(30), "nothing came of it");
        while client.told.lock().unwrap().is_empty() {
            in_time();
            thread::yield_now();
        }
        assert_eq!(*client.told.lock().unwrap(), ["orders:second"]);
        let gone = Arc::downgrade(&client);
        drop(client);
        while gone.strong_count() > 0 {
            in_time();
            thread::yield_now();
        }
    }

    #[test]
    fn only_what_stands_in_files_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "first").unwrap();
        let credentials = of(&[("sasl.password.file", path.to_str().unwrap())]);
        assert_eq!(credentials.settings().collect::<Vec<_>>(), [("sasl.password", "first".to_owned())]);
        let none = [("sasl.password".to_owned(), "canary".to_owned())].into();
        assert!(Credentials::of(&none, "test").unwrap().is_none());
    }

    #[test]
    fn a_file_has_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (text, read) in
            [(" a b ", Some(" a b ")), ("a\n", Some("a")), ("a\n\n", None), ("a\nb", None), ("\n", None)]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(value_in(&path).ok().as_deref(), read, "{text:?}");
        }
        fs::write(&path, "a".repeat(100_000)).unwrap();
        assert!(value_in(&path).is_err() && value_in(folder.path()).is_err());
    }
}
