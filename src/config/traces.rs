//! Where traces go: `[report.traces]` of a job file, or OpenTelemetry's own variables.

use axum::http::Uri;

use super::load::Environment;

/// What an address without a path of its own means, by the OTLP specification.
const TRACES_PATH: &str = "/v1/traces";

/// For traces alone, taken as it is; and for all signals, to which the path is added. The first one that is set counts.
const ENDPOINT_OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The first one that is set counts, as above.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];

/// How long one request may take, if nothing else is said, and at most: milliseconds.
const TIMEOUT_MS: (u64, u64) = (10_000, 60_000);

/// Where the spans of every batch are sent: an OpenTelemetry collector that takes OTLP over plain HTTP, as it does on port
/// 4318. Spark has nothing like it.
///
/// ```
/// use directstream::config::TracesConfig;
///
/// let traces = TracesConfig::to_collector("http://127.0.0.1:4318")?;
/// assert_eq!(traces.url(), "http://127.0.0.1:4318/v1/traces");
/// assert!(TracesConfig::to_collector("https://collector:4318").is_err());
/// # Ok::<(), directstream::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    url: String,
    timeout_ms: u64,
}

impl TracesConfig {
    /// The collector at `endpoint`, such as `http://127.0.0.1:4318`; `/v1/traces` is added to it. A request may take 10 s.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is no `http://` URL, or has a user in it.
    pub fn to_collector(endpoint: &str) -> crate::Result<Self> {
        Self::parse(endpoint).map_err(crate::Error::config)
    }

    /// What OpenTelemetry's variables of this process say: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` to which `/v1/traces` is added, and the like of `..._TIMEOUT` in milliseconds. `None`
    /// if neither is set, and where `OTEL_SDK_DISABLED=true` or `OTEL_TRACES_EXPORTER=none` turns traces off.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use directstream::{config::TracesConfig, stream::StreamingContext};
    ///
    /// let traces = TracesConfig::of_environment()?;
    /// StreamingContext::builder("orders", Duration::from_secs(1)).traces(traces);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if they name a place that spans cannot be sent to: one with TLS, or
    /// one that speaks gRPC.
    pub fn of_environment() -> crate::Result<Option<Self>> {
        match Self::of(&Environment::of_process()) {
            Ok(told) => Ok(told.map(|(_, traces)| traces)),
            Err((name, message)) => Err(crate::Error::config(format!("{message} variable={name}"))),
        }
    }

    /// The whole address, path included.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How long one request may take, in milliseconds.
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    /// The same, with the environment's timeout. Whether the environment turns all traces off is for [`is_off`] to say.
    pub(super) fn within(self, environment: &Environment) -> Self {
        let told = TIMEOUTS.iter().find_map(|name| environment.get(name)?.trim().parse().ok());
        Self { timeout_ms: told.map_or(TIMEOUT_MS.0, |ms: u64| ms.clamp(1, TIMEOUT_MS.1)), ..self }
    }

    /// What a job file says.
    pub(super) fn parse(endpoint: &str) -> Result<Self, String> {
        let base = endpoint.trim_end_matches('/');
        let base = base.strip_suffix(TRACES_PATH).unwrap_or(base);
        Self::exactly(&format!("{base}{TRACES_PATH}"))
    }

    fn exactly(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "not a URL such as \"http://127.0.0.1:4318\"".to_owned())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    "spans are sent over plain HTTP alone: to a collector beside the job, which may use TLS".into()
                );
            }
            _ => return Err("not a URL such as \"http://127.0.0.1:4318\"".to_owned()),
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return Err("there is no host in this URL".to_owned());
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err("no user and no query in this URL: give secrets in OTEL_EXPORTER_OTLP_HEADERS".to_owned());
        }
        Ok(Self { url: url.to_owned(), timeout_ms: TIMEOUT_MS.0 })
    }

    /// What these variables say, and which of them said it.
    pub(super) fn of(environment: &Environment) -> Result<Option<(&'static str, Self)>, (&'static str, String)> {
        let set = |name| environment.get(name).map(str::trim).filter(|value| !value.is_empty());
        if is_off(environment) {
            return Ok(None);
        }
        let (name, traces) = match (set(ENDPOINT_OF_TRACES), set(ENDPOINT)) {
            (Some(url), _) => (ENDPOINT_OF_TRACES, Self::exactly(url)),
            (None, Some(url)) => (ENDPOINT, Self::parse(url)),
            (None, None) => return Ok(None),
        };
        if let Some((name, "grpc")) = PROTOCOLS.into_iter().find_map(|name| Some((name, set(name)?))) {
            return Err((name, "spans are sent as http/protobuf, and not by gRPC".to_owned()));
        }
        let traces = traces.map_err(|message| (name, message))?;
        Ok(Some((name, traces.within(environment))))
    }
}

/// Whether these variables turn all traces off, wherever they would go.
pub(super) fn is_off(environment: &Environment) -> bool {
    let says =
        |name: &str, word: &str| environment.get(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
    says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_url_without_secrets() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector/", "http://collector/v1/traces"),
            ("http://[::1]:4318/otel", "http://[::1]:4318/otel/v1/traces"),
            ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ] {
            assert_eq!(TracesConfig::parse(text).unwrap().url(), url, "{text}");
        }
        let wrong = [
            "",
            "collector:4318",
            "https://collector",
            "grpc://a:4317",
            "http://u:p@a:1",
            "http://a/?key=1",
            "http://",
        ];
        for text in wrong {
            assert!(TracesConfig::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_environment_says_it_in_opentelemetry_s_own_words() {
        let of = |variables: &[(&str, &str)]| {
            let told = TracesConfig::of(&variables.iter().copied().collect());
            told.map(|told| told.map(|(_, traces)| (traces.url, traces.timeout_ms))).map_err(|(name, _)| name)
        };
        let told = |url: &str, timeout_ms| Ok(Some((url.to_owned(), timeout_ms)));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(ENDPOINT, "http://a:1")]), told("http://a:1/v1/traces", 10_000));
        let both = [(ENDPOINT, "https://a:1"), (ENDPOINT_OF_TRACES, "http://b:2/x"), (TIMEOUTS[1], "250")];
        assert_eq!(of(&both), told("http://b:2/x", 250));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(of(&[(ENDPOINT, "http://a:1"), off]), Ok(None));
        }
        assert_eq!(of(&[(ENDPOINT, "https://a:1")]), Err(ENDPOINT));
        assert_eq!(of(&[(ENDPOINT, "http://a:1"), (PROTOCOLS[1], "grpc")]), Err(PROTOCOLS[1]));
    }
}
