//! What must stay the same from one start of an application to the next.

use super::settings::StoreSettings;
use crate::error::{Error, Result};

/// What the application's row says; `None` until a first start has fixed it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub(crate) fingerprint: Option<String>,
    pub(crate) cluster_id: Option<String>,
    pub(crate) interval_ms: Option<i64>,
}

impl Identity {
    /// Refuses a start that would mix two applications, before anything is taken over.
    pub(crate) fn check(&self, settings: &StoreSettings) -> Result<()> {
        let application = &settings.application;
        if let (Some(stored), Some(given)) = (&self.cluster_id, &settings.cluster_id)
            && stored != given
        {
            return Err(Error::corrupt(format!(
                "the stored offsets belong to another Kafka cluster application={application} stored={stored:?} \
                 found={given:?}"
            )));
        }
        if let Some(stored) = &self.fingerprint
            && *stored != settings.fingerprint
        {
            return Err(Error::config(format!(
                "the job's sources or stateful operators are not those that the stored state belongs to: undo the change, or \
                 choose another application id application={application} stored={stored:?} found={:?}",
                settings.fingerprint
            )));
        }
        let given = interval_ms(settings);
        if let Some(stored) = self.interval_ms
            && settings.interval_fixed
            && stored != given
        {
            return Err(Error::config(format!(
                "a job with windows or state keeps the batch interval of its first start application={application} \
                 stored_ms={stored} found_ms={given}"
            )));
        }
        Ok(())
    }
}

/// The batch interval as it is stored.
pub(crate) fn interval_ms(settings: &StoreSettings) -> i64 {
    i64::try_from(settings.interval.as_millis()).unwrap_or(i64::MAX)
}

/// This machine's name.
pub(crate) fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// This process's id.
pub(crate) fn process_id() -> i64 {
    i64::from(std::process::id())
}
