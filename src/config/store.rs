//! `[store]`: where results and offsets are kept.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use super::{
    StoreKind, StoreUrl,
    fill::visible,
    job::{LEDGER_RETENTION_DEFAULT, Migrate, StoreConfig},
    kafka::{exclusive, is_loopback},
    read::{Found, Section},
    secret::has_password,
    stream::duration,
};

/// The ledger must at least outlive the batch in hand.
const LEDGER_RETENTION_MIN: Duration = Duration::from_secs(60);

/// A file with one URL in it is not longer.
const URL_FILE_BYTES_MAX: u64 = 64 << 10;

pub(super) fn read(section: &Section<'_>) -> Option<StoreConfig> {
    let url = url(section);
    let migrate = section.find("migrate").map_or(Some(Migrate::default()), |found| {
        found.one_of(&[Migrate::Auto, Migrate::Off].map(|choice| (choice.as_str(), choice)))
    });
    let ledger_retention =
        duration(section, "ledger_retention", LEDGER_RETENTION_DEFAULT, LEDGER_RETENTION_MIN..=Duration::MAX);
    Some(StoreConfig { url: url?, migrate: migrate?, ledger_retention: ledger_retention? })
}

fn url(section: &Section<'_>) -> Option<StoreUrl> {
    match exclusive(section, "url", "url_file") {
        (Some(found), _) => {
            let text = found.text()?;
            let url = parse_url(&found, text.trim())?;
            let seen = found.written().map_or(text, visible);
            if has_password(&seen) && found.origin().is_readable_by_others() {
                found.warn("a password stands in the open here: use url_file or ${VAR}");
            }
            Some(url)
        }
        (None, Some(found)) => {
            let path = found.text()?;
            let text = read_url_file(&found, &path)?;
            let url =
                StoreUrl::parse(text.trim()).map_err(|message| found.fault(format!("in the file: {message}"))).ok()?;
            warn_unverified(&found, &url);
            Some(url.kept_in(path))
        }
        (None, None) => {
            section.missing("url", "missing: give a url, or a url_file with it");
            None
        }
    }
}

fn parse_url(found: &Found<'_>, text: &str) -> Option<StoreUrl> {
    match StoreUrl::parse(text) {
        Ok(url) => {
            warn_unverified(found, &url);
            Some(url)
        }
        // Without a scheme the whole of it might be a password.
        Err(message) if text.contains("://") => {
            found.fault(message);
            None
        }
        Err(message) => {
            found.secret_fault(message);
            None
        }
    }
}

/// Warns where the database's name is not verified, off this machine.
fn warn_unverified(found: &Found<'_>, url: &StoreUrl) {
    let elsewhere = url.host().is_some_and(|host| !host.is_empty() && !is_loopback(host));
    if url.kind() == StoreKind::Postgres && elsewhere && !url.has_parameter("sslmode") {
        found.warn("the connection to another machine may be unencrypted: add sslmode=verify-full to the url");
    }
}

fn read_url_file(found: &Found<'_>, path: &str) -> Option<String> {
    let text = url_in(Path::new(path)).map_err(|why| found.fault(why)).ok()?;
    if can_be_read_by_others(Path::new(path)) {
        found.warn("the file with the url can be read by others: chmod 600 it");
    }
    Some(text)
}

/// Whether anybody but its owner may read the file.
pub(super) fn can_be_read_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

/// What stands in a file that holds a URL, or why it does not.
pub(super) fn url_in(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot read the file: {}", error.kind());
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > URL_FILE_BYTES_MAX {
        return Err("not a file with one url in it".to_owned());
    }
    fs::read_to_string(path).map_err(unreadable)
}
