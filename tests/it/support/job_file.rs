//! The text of a job file.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A job over one topic, as its file says it: what tests have in common is here, the rest is theirs.
pub(crate) struct JobFile {
    bootstrap_servers: String,
    topic: String,
    store: String,
    name: &'static str,
    kafka: String,
    stream: String,
    input: String,
    outputs: String,
    report: String,
}

impl JobFile {
    /// A job of batches of 50 ms, without an output.
    pub(crate) fn new(bootstrap_servers: &str, topic: &str, store: &str) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.to_owned(),
            topic: topic.to_owned(),
            store: store.to_owned(),
            name: "job",
            kafka: String::new(),
            stream: "batch_interval = \"50ms\"".to_owned(),
            input: String::new(),
            outputs: String::new(),
            report: "listen = \"off\"".to_owned(),
        }
    }

    pub(crate) fn name(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// More lines of the section `[kafka]`.
    pub(crate) fn kafka(self, lines: impl Into<String>) -> Self {
        Self { kafka: lines.into(), ..self }
    }

    /// The lines of the section `[stream]`.
    pub(crate) fn stream(self, lines: impl Into<String>) -> Self {
        Self { stream: lines.into(), ..self }
    }

    /// The lines of the section `[input]`.
    pub(crate) fn input(self, lines: impl Into<String>) -> Self {
        Self { input: lines.into(), ..self }
    }

    /// The sections `[[output]]`.
    pub(crate) fn outputs(self, sections: impl Into<String>) -> Self {
        Self { outputs: sections.into(), ..self }
    }

    /// The lines of the section `[report]`.
    pub(crate) fn report(self, lines: impl Into<String>) -> Self {
        Self { report: lines.into(), ..self }
    }

    /// Writes `job.toml` into a folder; its path.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let Self { bootstrap_servers, topic, store, name, kafka, stream, input, outputs, report } = self;
        let text = format!(
            "name = \"{name}\"\n[kafka]\nbootstrap_servers = \"{bootstrap_servers}\"\ntopics = [\"{topic}\"]\n{kafka}\n\
             [stream]\n{stream}\n[input]\n{input}\n[store]\nurl = \"{store}\"\n[report]\n{report}\n{outputs}"
        );
        let path = folder.join("job.toml");
        fs::write(&path, text).unwrap();
        path
    }
}
