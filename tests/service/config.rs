//! What a service may be told, and what it says about it.

use std::process::{Command, Output};

use tempfile::TempDir;

const SOUND: &str = "[index]\npath = 'indexes'\n[store]\naddress = 'redis://someone:secret@127.0.0.1:6379/0'\n\
                     [keys]\nread = ['read-0123456789abcdef']\nadmin = ['admin-0123456789abcdef']\n";

fn check(folder: &TempDir, text: &str, flags: &str, environment: &[(&str, &str)]) -> Output {
    std::fs::write(folder.path().join("serve.toml"), text).unwrap();
    let line = format!("config check --config serve.toml {flags}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tonnage"));
    command.current_dir(folder.path()).args(line.split_whitespace()).envs(environment.iter().copied());
    command.output().unwrap()
}

#[test]
fn what_is_in_effect_is_shown_without_its_secrets() {
    let folder = TempDir::new().unwrap();
    let environment = [("TONNAGE__LIMITS__K", "77"), ("TONNAGE__STORE__NAMESPACE", "shop")];
    let shown = check(&folder, SOUND, "--set run.ef=33", &environment);
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(!text.contains("secret") && !text.contains("0123456789"), "{text}");
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["limits"]["k"].as_integer(), Some(77));
    assert_eq!(table["store"]["namespace"].as_str(), Some("shop"));
    assert_eq!(table["run"]["ef"].as_integer(), Some(33));
    assert_eq!(table["store"]["address"].as_str(), Some("redis://<redacted>@127.0.0.1:6379/0"));
    assert_eq!(table["listen"]["address"].as_str(), Some("127.0.0.1:8080"), "nobody else reaches it");
}

#[test]
fn what_cannot_be_meant_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let refused = |text: &str, flags: &str, words: &str| {
        let output = check(&folder, text, flags, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{text} {flags}: {said}");
        assert!(said.contains(words) && !said.contains("0123456789"), "{words}: {said}");
    };
    refused(&format!("{SOUND}[limits]\nkk = 1\n"), "", "kk");
    refused(&format!("{SOUND}[limit]\nk = 1\n"), "", "limit");
    refused(&format!("{SOUND}[limits]\nk = 0\n"), "", "limits.k: expected 1 to 10000, got 0");
    refused(&format!("{SOUND}[limits]\nk = -1\n"), "", "configuration");
    refused(&format!("{SOUND}[run]\nqueue_ms = inf\n"), "", "run.queue_ms");
    refused(&format!("{SOUND}[run]\nrecall_floor = nan\n"), "", "run.recall_floor");
    refused(SOUND, "--set log.level=loud", "loud");
    refused(SOUND, "--set stroe.address=x", "stroe");
    refused(SOUND, "--listen nowhere", "configuration");
    refused("[index]\npath = 'x'\n", "", "store.address");
    refused("[store]\naddress = 'x'\n", "", "index.path");
    let open = "[index]\npath = 'x'\n[store]\naddress = 'x'\n";
    refused(open, "--listen 0.0.0.0:8080", "listen.address: expected a loopback address, or keys");
    refused(open, "--admin [::]:8081", "listen.admin");
    refused(open, "--set keys.read=['short']", "16 visible");
    refused(open, "--set listen.tls_key=key.pem", "listen.tls_key");
    refused("[[[", "", "serve.toml");
    assert!(check(&folder, SOUND, "--listen 0.0.0.0:8080 --admin 0.0.0.0:8081", &[]).status.success());
}
