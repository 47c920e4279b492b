//! Values that must not be seen: what holds a password can be passed on, never printed.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::error::Error;

/// A text that is never printed: not by `Debug`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the library that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Which database a URL means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// `postgres://` or `postgresql://`
    Postgres,
    /// `sqlite:`
    Sqlite,
    /// `checkpoint:`, a folder for offsets and ledger, without tables
    Checkpoint,
    /// `kafka:`, a consumer group of the cluster that is read, for offsets alone
    Kafka,
}

/// The URL of the database. Printed, it shows user, host and database, never the password or its parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    url: Secret,
    kind: StoreKind,
    /// Where it was read, and is read again for each connection.
    file: Option<PathBuf>,
}

impl StoreUrl {
    /// Reads the URL's scheme and looks for what is plainly wrong. The database's own library reads the rest.
    ///
    /// # Errors
    /// What is wrong, without the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = |prefixes: &[&str]| prefixes.iter().find_map(|prefix| url.strip_prefix(prefix));
        let kind = if let Some(rest) = rest(&["postgres://", "postgresql://"]) {
            if rest.is_empty() {
                return Err("the url names no host and no database".to_owned());
            }
            StoreKind::Postgres
        } else if let Some(rest) = rest(&["sqlite://", "sqlite:"]) {
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            if path.is_empty() {
                return Err("the url names no file".to_owned());
            }
            if path == ":memory:" || query.split('&').any(|pair| pair == "mode=memory") {
                return Err("a database in memory forgets the offsets: name a file".to_owned());
            }
            StoreKind::Sqlite
        } else if let Some(path) = rest(&["checkpoint://", "checkpoint:"]) {
            if path.is_empty() || path.contains('?') {
                return Err("the url names a folder and has no parameters".to_owned());
            }
            StoreKind::Checkpoint
        } else if let Some(group) = rest(&["kafka:"]) {
            if group.contains(['/', '?', '@']) {
                return Err("the url names a consumer group or nothing: the cluster is the one that is read".to_owned());
            }
            StoreKind::Kafka
        } else {
            return Err("the url must begin with postgres://, sqlite:, checkpoint: or kafka:".to_owned());
        };
        if url.contains(char::is_control) {
            return Err("the url holds a control character".to_owned());
        }
        Ok(Self { url: Secret::new(url), kind, file: None })
    }

    /// Which database it means.
    #[must_use]
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// The URL with everything in it, for the database's library.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.url.expose()
    }

    /// The same, known to come from this file.
    pub(super) fn kept_in(self, file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    /// The URL as it is now: that of a file is read again, so that a password which was changed there is taken at the next
    /// connection. Its host and database stay what they were at the start.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) while the file cannot be read or holds no URL, as between two steps
    /// of whoever changes it; [`ErrorKind::Config`](crate::ErrorKind::Config) if it names another database.
    pub fn read_again(&self) -> Result<Self, Error> {
        let Some(file) = &self.file else { return Ok(self.clone()) };
        let unreadable = |why: String| {
            Error::unavailable(format!("cannot read the store's url again file={}: {why}", file.display()))
        };
        let text = super::store::url_in(file).map_err(unreadable)?;
        let url = Self::parse(text.trim()).map_err(unreadable)?.kept_in(file);
        let place =
            |url: &Self| postgres_parts(url.expose()).map(|parts| (parts.host.to_owned(), parts.database.to_owned()));
        if url.kind != self.kind || place(&url) != place(self) {
            return Err(Error::config(format!(
                "the file names another database than at the start: start the job anew file={} url={self}",
                file.display()
            )));
        }
        Ok(url)
    }

    /// The file of an SQLite URL.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<&str> {
        if self.kind != StoreKind::Sqlite {
            return None;
        }
        let url = self.expose();
        let rest = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
        Some(rest.split_once('?').map_or(rest, |(path, _)| path))
    }

    /// The folder of a checkpoint URL.
    #[must_use]
    pub fn checkpoint_path(&self) -> Option<&str> {
        if self.kind != StoreKind::Checkpoint {
            return None;
        }
        let url = self.expose();
        url.strip_prefix("checkpoint://").or_else(|| url.strip_prefix("checkpoint:"))
    }

    /// The consumer group of a Kafka URL; empty if it is the application's name.
    #[must_use]
    pub fn kafka_group(&self) -> Option<&str> {
        self.expose().strip_prefix("kafka:").filter(|_| self.kind == StoreKind::Kafka)
    }

    /// The host of a PostgreSQL URL, if it names one that can be read without doubt.
    pub(super) fn host(&self) -> Option<&str> {
        postgres_parts(self.expose()).map(|parts| parts.host)
    }

    /// Whether the URL has this parameter.
    pub(super) fn has_parameter(&self, name: &str) -> bool {
        let query = self.expose().rsplit_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|pair| pair.split('=').next() == Some(name))
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): what is wrong, without the URL.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(Error::config)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            StoreKind::Sqlite => write!(f, "sqlite:{}", self.sqlite_path().unwrap_or_default()),
            // A path or a name, and nothing else.
            StoreKind::Checkpoint | StoreKind::Kafka => f.write_str(self.expose()),
            StoreKind::Postgres => match postgres_parts(self.expose()) {
                Some(PostgresParts { user: Some(user), host, database }) => {
                    write!(f, "postgres://{user}@{host}{database}")
                }
                Some(PostgresParts { user: None, host, database }) => write!(f, "postgres://{host}{database}"),
                None => f.write_str("postgres://[hidden]"),
            },
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct PostgresParts<'a> {
    user: Option<&'a str>,
    /// With its port.
    host: &'a str,
    /// With its slash, or empty.
    database: &'a str,
}

/// The parts of the URL that may be printed; nothing if they cannot be told from a password without doubt.
///
/// A password with an unescaped `@`, `/`, `?` or `#` shifts where a parser sees the host. So the last `@` of the whole
/// text ends the password, and every part must look like what it is said to be.
fn postgres_parts(url: &str) -> Option<PostgresParts<'_>> {
    let (_, rest) = url.split_once("://")?;
    let (user, rest) = match rest.rsplit_once('@') {
        Some((userinfo, rest)) => (Some(userinfo.split_once(':').map_or(userinfo, |(user, _)| user)), rest),
        None => (None, rest),
    };
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let (host, database) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let fits = user.is_none_or(|user| plain(user, "_.-"))
        && plain(host, "_.-:[]")
        && plain(database.strip_prefix('/').unwrap_or(database), "_.-");
    fits.then_some(PostgresParts { user, host, database })
}

/// Whether a PostgreSQL URL holds a password, in its user part or as a parameter.
pub(super) fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let in_userinfo = rest
        .rsplit_once('@')
        .and_then(|(userinfo, _)| userinfo.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty());
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    in_userinfo || query.split('&').any(|pair| pair.starts_with("password=") && pair.len() > "password=".len())
}

/// What may be said about a value in a message: of a URL its scheme alone, control characters escaped, not too long.
pub(super) fn offending_word(value: &str) -> String {
    const WORD_CHARACTERS_MAX: usize = 80;
    if let Some((scheme, _)) = value.split_once("://") {
        // What stands before the scheme, if anything, is cut as well: only its last word is the scheme.
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let scheme = scheme.rsplit(|c| !letters(c)).next().unwrap_or_default();
        return format!("{scheme}://...");
    }
    let mut word: String = value.chars().take(WORD_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if value.chars().nth(WORD_CHARACTERS_MAX).is_some() {
        word.push_str("...");
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[hidden]");
        assert_eq!(format!("{:#?}", Some(Secret::new("hunter2"))), "Some(\n    [hidden],\n)");
    }

    #[test]
    fn a_store_url_prints_no_password_however_it_is_written() {
        for (url, printed) in [
            ("postgres://app:canary@db:5432/app", "postgres://app@db:5432/app"),
            ("postgresql://app@db/app?sslmode=require", "postgres://app@db/app"),
            ("postgres://db/app?user=u&password=canary", "postgres://db/app"),
            ("postgres://app:ca/nary@db/app", "postgres://app@db/app"),
            ("postgres://app:c@canary@db/app", "postgres://app@db/app"),
            ("postgres://app:canary?x@db/app", "postgres://app@db/app"),
            ("postgres://app:canary#x@db/app", "postgres://app@db/app"),
            ("postgres://db/app?options=canary@x", "postgres://[hidden]"),
            ("postgres://app%40x:canary@db/app", "postgres://[hidden]"),
            ("sqlite:orders.db", "sqlite:orders.db"),
            ("sqlite://orders.db?cipher=canary", "sqlite:orders.db"),
            ("checkpoint:///var/lib/orders", "checkpoint:///var/lib/orders"),
            ("kafka:orders", "kafka:orders"),
        ] {
            let parsed = StoreUrl::parse(url).unwrap();
            assert_eq!(parsed.to_string(), printed, "{url}");
            assert_eq!(format!("{parsed:?}"), printed, "{url}");
            assert_eq!(parsed.expose(), url);
        }
    }

    #[test]
    fn a_store_url_that_cannot_work_is_refused_without_being_repeated() {
        for url in [
            "mysql://u:canary@h/d",
            "canary",
            "",
            "postgres://",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:x?mode=memory",
            "checkpoint:",
            "checkpoint:x?canary",
            "kafka://u:canary@h",
            "kafka:orders?canary",
        ] {
            let message = StoreUrl::parse(url).unwrap_err();
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn a_url_names_the_file_or_the_folder_of_its_own_store() {
        let paths = |url| {
            let url = StoreUrl::parse(url).unwrap();
            (url.sqlite_path().map(str::to_owned), url.checkpoint_path().map(str::to_owned))
        };
        assert_eq!(paths("sqlite://a/b.db?mode=rw"), (Some("a/b.db".to_owned()), None));
        assert_eq!(paths("checkpoint:a/b"), (None, Some("a/b".to_owned())));
        assert_eq!(paths("checkpoint:///a/b"), (None, Some("/a/b".to_owned())));
        assert_eq!(paths("postgres://h/d"), (None, None));
    }

    #[test]
    fn a_password_in_a_url_is_seen() {
        assert!(has_password("postgres://u:p@h/d"));
        assert!(has_password("postgres://h/d?user=u&password=p"));
        assert!(!has_password("postgres://u@h/d"));
        assert!(!has_password("postgres://u:@h/d"));
        assert!(!has_password("sqlite:x.db"));
    }

    #[test]
    fn the_offending_word_of_a_url_is_its_scheme() {
        assert_eq!(offending_word("mysql://u:p@h"), "mysql://...");
        assert_eq!(offending_word("u:p@h x://y"), "x://...");
        assert_eq!(offending_word("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(offending_word(&"x".repeat(100)).len(), 83);
    }
}
