//! The JSON API under `/api/v1/`: Spark's paths where Spark has them, and what the web page needs. It only answers.
//!
//! Every route is a line of [`ROUTES`], and every answer is described in `openapi.json`; a test compares the three.

use axum::{
    Router,
    extract::{RawPathParams, RawQuery, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use serde::Serialize;

use super::{answers, printable, reporter::Reporter, server::answer, shortened, spark_api};

/// Entries of one answer: more are on the next page.
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;

/// Entries of one answer where nobody says how many.
const PAGE_ENTRIES_DEFAULT: usize = 100;

/// What is repeated of a word that was not understood, in bytes.
const WORD_BYTES_MAX: usize = 100;

/// The description of all this, in OpenAPI 3.1.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// What answers one path.
pub(super) type Answer = fn(&Reporter, &Asked) -> Result<String, Refused>;

/// All paths, and what answers them.
pub(super) const ROUTES: &[(&str, Answer)] = &[
    ("/api/v1/applications", spark_api::applications),
    ("/api/v1/applications/{app}/streaming/statistics", spark_api::statistics),
    ("/api/v1/version", spark_api::version),
    ("/api/v1/applications/{app}/streaming/receivers", spark_api::receivers),
    ("/api/v1/applications/{app}/streaming/receivers/{streamId}", spark_api::receiver),
    ("/api/v1/applications/{app}/streaming/batches", spark_api::batches),
    ("/api/v1/applications/{app}/streaming/batches/{batchId}", spark_api::batch),
    ("/api/v1/applications/{app}/streaming/batches/{batchId}/operations", spark_api::operations),
    ("/api/v1/applications/{app}/streaming/batches/{batchId}/operations/{outputOpId}", spark_api::operation),
    ("/api/v1/overview", answers::overview),
    ("/api/v1/batches", answers::batches),
    ("/api/v1/batches/{batchSeq}", answers::batch),
    ("/api/v1/dropped", answers::dropped),
    ("/api/v1/partitions", answers::partitions),
    ("/api/v1/graph", answers::graph),
    ("/api/v1/dead-letters", answers::dead_letters),
    ("/api/v1/openapi.json", |_, _| Ok(OPENAPI.to_owned())),
];

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such thing: 404.
    NotFound(String),
    /// The question cannot be understood: 400.
    Invalid(String),
    /// A defect: 500.
    Defect,
}

/// What a request says beside its path.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn new(path: impl IntoIterator<Item = (String, String)>, query: &str) -> Self {
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { path: path.into_iter().collect(), query }
    }

    /// A part of the path.
    pub(super) fn part(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The same as a number; `what` it is the number of.
    pub(super) fn number_of<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<T, Refused> {
        let text = self.part(name);
        text.parse().map_err(|_| Refused::not_found(what, text))
    }

    /// All values of a parameter.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// A number that may be left out.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refused> {
        let parse = |text: &str| {
            let word = printable(&shortened(text, WORD_BYTES_MAX)).into_owned();
            text.parse().map_err(|_| Refused::Invalid(format!("not a number {name}={word}")))
        };
        self.first(name).map(parse).transpose()
    }

    /// One of these words, that may be left out: its place among them.
    pub(super) fn one_of(&self, name: &str, words: &[&str]) -> Result<Option<usize>, Refused> {
        let Some(text) = self.first(name) else { return Ok(None) };
        let word = || printable(&shortened(text, WORD_BYTES_MAX)).into_owned();
        let refused = || Refused::Invalid(format!("not one of {} {name}={}", words.join(", "), word()));
        words.iter().position(|word| *word == text).map(Some).ok_or_else(refused)
    }

    /// The page that is asked for: how many to pass over, and how many to give.
    pub(super) fn page(&self) -> Result<(usize, usize), Refused> {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let from = self.number("from")?.map_or(0, size);
        let count = self.number("count")?.map_or(PAGE_ENTRIES_DEFAULT, size);
        Ok((from, count.min(PAGE_ENTRIES_MAX)))
    }
}

impl Refused {
    /// As Spark says it: `unknown batch: 5`.
    pub(super) fn not_found(what: &str, word: &str) -> Self {
        Self::NotFound(format!("unknown {what}: {}", printable(&shortened(word, WORD_BYTES_MAX))))
    }

    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotFound(text) => (StatusCode::NOT_FOUND, text),
            Self::Invalid(text) => (StatusCode::BAD_REQUEST, text),
            Self::Defect => (StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written".to_owned()),
        };
        answer(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }
}

/// The answer as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<String, Refused> {
    serde_json::to_string(value).map_err(|_| Refused::Defect)
}

/// Adds the routes.
pub(super) fn with_routes(router: Router<Reporter>) -> Router<Reporter> {
    ROUTES.iter().fold(router, |router, (path, answer)| {
        router.route(
            path,
            get(async move |State(reporter): State<Reporter>, parts: RawPathParams, RawQuery(query): RawQuery| {
                let parts: Vec<_> = parts.iter().map(|(name, part)| (name.to_owned(), part.to_owned())).collect();
                respond(reporter, *answer, Asked::new(parts, query.as_deref().unwrap_or_default())).await
            }),
        )
    })
}

async fn respond(reporter: Reporter, route: Answer, asked: Asked) -> Response {
    // A thousand batches take milliseconds to write, which other tasks of this thread need not wait for.
    let body = tokio::task::spawn_blocking(move || route(&reporter, &asked)).await;
    match body.unwrap_or(Err(Refused::Defect)) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(refused) => refused.into_response(),
    }
}
