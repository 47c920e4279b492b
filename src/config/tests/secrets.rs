//! What must not be seen.

use super::*;
use crate::error::ErrorKind;

#[test]
fn a_url_is_named_by_its_scheme_alone() {
    let found = faults(&SMALL.replace("sqlite:small.db", "mysql://app:canary@db/app"));
    assert_eq!(
        found,
        [
            "job.toml:6:7: store.url: the url must begin with postgres://, sqlite:, checkpoint: or kafka: word=\"mysql://...\""
        ]
    );
    for (key, value) in [
        ("name = \"small\"", "name = \"postgres://u:canary@h\""),
        ("sqlite:small.db", "canary"),
        ("topics = [\"t\"]", "topics = [\"kafka://u:canary@h\"]"),
        ("localhost:9092", "kafka://u:canary@h/x"),
        ("[store]\nurl = ", "[store]\n\"postgres://u:canary@h\" = 1\nurl = "),
        ("[store]\nurl = \"sqlite:small.db\"", "[store]\nurl = [\"postgres://u:canary@h\"]"),
        ("\"value\"", "\"postgres://u:canary@h\""),
    ] {
        let found = faults(&SMALL.replace(key, value));
        assert!(!found.is_empty());
        assert!(!found.iter().any(|fault| fault.contains("canary")), "{found:?}");
    }
}

#[test]
fn a_secret_is_printed_by_nothing() {
    let options = options(
        &[("URL", "postgres://app:canary1@db/app"), ("PASSWORD", "canary2"), ("NUMBER", "canary3")],
        &[("kafka.properties.ssl.key.password", "canary4"), ("kafka.properties.sasl.username", "canary5")],
    );
    let text = FULL.replace("postgres://app@${HOST:localhost}/app", "${URL}");
    let Loaded { job, warnings } = loaded(&text, &options);
    let shown = format!("{job:#?}{:#?}{warnings:#?}{options:?}", effective(&job));
    assert!(job.store.url.expose().contains("canary1"));
    // The options hold what the command line held; it is the shell that made it public, and a warning says so.
    let shown = shown.replace("(\"kafka.properties.ssl.key.password\", \"canary4\")", "");
    let shown = shown.replace("canary5\")", "");
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("postgres://app@db/app"), "{shown}");
    // A secret in a place where it does not fit is not repeated either: only what the file says is.
    let text = text.replace("max_rate_per_partition = 10000", "max_rate_per_partition = \"${NUMBER}\"");
    let found = faults_with(&text, &options);
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("word=\"${NUMBER}\""), "{found:?}");
    // librdkafka repeats what it refuses; we do not.
    let found = faults(&small_with("[kafka]", "properties.\"sasl.oauthbearer.method\" = \"canary\""));
    assert!(found.len() == 1 && !found[0].contains("canary"), "{found:?}");
}

#[test]
fn secrets_in_the_open_are_warned_of() {
    let warnings = |text: &str, options: &LoadOptions| -> Vec<String> {
        loaded(text, options).warnings.iter().map(ToString::to_string).collect()
    };
    let url = |url: &str| SMALL.replace("sqlite:small.db", url);
    let none = LoadOptions::default();
    let secret = options(&[("P", "canary")], &[]);
    assert!(warnings(&url("postgres://app:${P}@localhost/app"), &secret).is_empty());
    let open = warnings(&url("postgres://app:canary@localhost/app"), &none);
    assert_eq!(open, ["job.toml:6:7: store.url: a password stands in the open here: use url_file or ${VAR}"]);
    assert_eq!(warnings(&url("postgres://app:${P:canary}@localhost/app"), &none).len(), 1);
    let set = options(&[], &[("store.url", "postgres://app:canary@localhost/app")]);
    assert_eq!(warnings(SMALL, &set).len(), 1);
    let environment = options(&[("DIRECTSTREAM__STORE__URL", "postgres://app:canary@localhost/app")], &[]);
    assert!(warnings(SMALL, &environment).is_empty());
    let property = small_with("[kafka]", "properties.\"sasl.password\" = \"canary\"");
    assert_eq!(warnings(&property, &none).len(), 1);
    let remote = warnings(&SMALL.replace("localhost:9092", "kafka:9092"), &none);
    assert!(remote.len() == 1 && remote[0].contains("unencrypted"), "{remote:?}");
    assert_eq!(warnings(&url("postgres://db/app"), &none).len(), 1);
    assert!(warnings(&url("postgres://db/app?sslmode=verify-full"), &none).is_empty());
    assert_eq!(warnings(&format!("{SMALL}[report]\nlisten = \"0.0.0.0:9464\"\n"), &none).len(), 1);
}

#[test]
fn the_digest_for_zookeeper_is_a_secret() {
    let text = |digest: &str| format!("{SMALL}[report]\nzookeeper = {{ connect = \"z\", digest = \"{digest}\" }}\n");
    let Loaded { job, warnings } = loaded(&text("${D}"), &options(&[("D", "me:canary")], &[]));
    let mirror = job.report.zookeeper.as_ref().unwrap();
    assert_eq!((&*mirror.group, mirror.digest.as_ref().unwrap().expose()), ("small", "me:canary"));
    assert!(warnings.is_empty() && !format!("{job:#?}{:#?}", effective(&job)).contains("canary"));
    let shown = effective(&job).into_iter().find(|value| value.path == "report.zookeeper.digest").unwrap();
    assert_eq!(shown.value.as_deref(), Some("[hidden]"));
    assert_eq!(loaded(&text("me:canary"), &LoadOptions::default()).warnings.len(), 1);
    let found = faults(&text("canary"));
    assert!(found.len() == 1 && !found[0].contains("canary"), "{found:?}");
}

#[test]
fn dangerous_keys_pass_when_they_are_asked_for() {
    let options = LoadOptions { allow_unsafe_kafka_options: true, ..LoadOptions::default() };
    let job = loaded(&small_with("[kafka]", "properties.debug = \"consumer\""), &options).job;
    assert_eq!(job.kafka.properties["debug"].expose(), "consumer");
    let text = small_with("[kafka]", "insecure = true\nproperties.\"enable.ssl.certificate.verification\" = false");
    assert!(loaded(&text, &LoadOptions::default()).job.kafka.insecure);
}

#[test]
fn the_url_can_stand_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    let text = SMALL.replace("url = \"sqlite:small.db\"", &format!("url_file = \"{}\"", path.display()));
    let found = faults(&text);
    assert!(found.len() == 1 && found[0].contains("cannot read the file: entity not found"), "{found:?}");
    std::fs::write(&path, "postgres://app:canary@localhost/app\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(loaded(&text, &LoadOptions::default()).warnings.len(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let Loaded { job, warnings } = loaded(&text, &LoadOptions::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(job.store.url.expose(), "postgres://app:canary@localhost/app");
    let shown = effective(&job).into_iter().find(|value| value.path == "store.url_file").unwrap();
    assert_eq!(shown.value.as_deref(), Some("postgres://app@localhost/app"));
    assert_eq!(shown.origin.to_string(), "job.toml:6");
    // For each connection it is read again: the password may be another one, the database not.
    std::fs::write(&path, "postgres://app:changed@localhost/app").unwrap();
    assert_eq!(job.store.url.read_again().unwrap().expose(), "postgres://app:changed@localhost/app");
    for (text, kind) in [
        ("postgres://app:canary@elsewhere/app", ErrorKind::Config),
        ("postgres://app:canary@localhost/other", ErrorKind::Config),
        ("sqlite:canary.db", ErrorKind::Config),
        ("canary", ErrorKind::Unavailable),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = job.store.url.read_again().unwrap_err();
        assert!(error.kind() == kind && !error.chain().contains("canary"), "{text}: {}", error.chain());
    }
    std::fs::write(&path, "canary").unwrap();
    let found = faults(&text);
    assert!(found.len() == 1 && !found[0].contains("canary"), "{found:?}");
}

#[test]
fn user_and_password_of_kafka_can_stand_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let key = format!("properties.\"sasl.password.file\" = \"{}\"", path.display());
    let text = small_with("[kafka]", &key);
    let found = faults(&text);
    assert!(found.len() == 1 && found[0].contains("cannot read the file: entity not found"), "{found:?}");
    let write = |content: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    for (content, fault) in [
        ("", "the file is empty"),
        ("\n", "the file is empty"),
        ("canary\ncanary\n", "one line"),
        ("canary\0", "one line"),
    ] {
        write(content);
        let found = faults(&text);
        assert!(found.len() == 1 && found[0].contains(fault) && !found[0].contains("canary"), "{found:?}");
    }
    write("canary\n");
    let Loaded { job, warnings } = loaded(&text, &LoadOptions::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    let shown = effective(&job);
    assert!(!format!("{job:#?}{shown:#?}").contains("canary"));
    let shown = shown.into_iter().find(|value| value.path == "kafka.properties.sasl.password.file").unwrap();
    assert_eq!(shown.value, Some(path.display().to_string()));
    let found = faults(&small_with("[kafka]", "properties.\"sasl.password.file\" = \"canary\""));
    assert!(found.len() == 1 && !found[0].contains("canary"), "{found:?}");
    // Both are a fault; of two layers the higher one counts, and the file of the lower one need not be there.
    let both = small_with("[kafka]", &format!("{key}\nproperties.\"sasl.password\" = \"${{P}}\""));
    let found = faults_with(&both, &options(&[("P", "canary")], &[]));
    assert!(found.len() == 1 && found[0].contains("either sasl.password or sasl.password.file, not both"), "{found:?}");
    let above = options(&[("DIRECTSTREAM__KAFKA__PROPERTIES__SASL_PASSWORD", "canary")], &[]);
    let text = text.replace("/password", "/not-there");
    let keys: Vec<String> = loaded(&text, &above).job.kafka.properties.into_keys().collect();
    assert_eq!(keys, ["sasl.password"]);
    let path = path.display().to_string();
    let above = options(&[("DIRECTSTREAM__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", &path), ("P", "canary")], &[]);
    let given = small_with("[kafka]", "properties.\"sasl.password\" = \"${P}\"");
    let keys: Vec<String> = loaded(&given, &above).job.kafka.properties.into_keys().collect();
    assert_eq!(keys, ["sasl.password.file"]);
}
