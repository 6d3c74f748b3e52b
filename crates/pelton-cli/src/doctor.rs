//! `pelton doctor`: what the driver found out about this system, for a person or as JSON.

use pelton::driver::probe::{Diagnosis, Limit};
use serde_json::{Value, json};

/// What to print.
pub(crate) fn report(diagnosis: &Diagnosis, as_json: bool) -> String {
    if as_json { format!("{:#}\n", to_json(diagnosis)) } else { to_text(diagnosis) }
}

fn to_text(diagnosis: &Diagnosis) -> String {
    let mut text = format!("pelton {}\n\n{diagnosis}", env!("CARGO_PKG_VERSION"));
    if diagnosis.advice.is_empty() {
        text.push_str("\nNothing to change.\n");
    }
    text
}

/// The keys are those of the fields, which is what a bug report and a script can rely on.
fn to_json(diagnosis: &Diagnosis) -> Value {
    let limit = |limit: Limit| json!({ "soft": limit.soft, "hard": limit.hard });
    let features: serde_json::Map<String, Value> = diagnosis
        .io_uring
        .features
        .iter()
        .map(|feature| (feature.name.to_owned(), json!(feature.granted)))
        .collect();
    let advice: Vec<Value> = diagnosis
        .advice
        .iter()
        .map(|advice| {
            json!({
                "severity": advice.severity.name(),
                "what": advice.what,
                "do_this": advice.do_this,
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": diagnosis.system,
        "kernel": diagnosis.kernel,
        "backend": diagnosis.backend,
        "backend_reason": diagnosis.backend_reason,
        "requested": diagnosis.requested,
        "io_uring": {
            "works": diagnosis.io_uring.works,
            "reason": diagnosis.io_uring.reason,
            "cure": diagnosis.io_uring.cure,
            "features": features,
            "ring_bytes": diagnosis.io_uring.ring_bytes,
        },
        "limits": {
            "nofile": limit(diagnosis.limits.nofile),
            "memlock": limit(diagnosis.limits.memlock),
            "io_uring_disabled": diagnosis.limits.io_uring_disabled,
            "somaxconn": diagnosis.limits.somaxconn,
        },
        "cpus": diagnosis.cpus,
        "usable_cpus": diagnosis.usable_cpus,
        "advice": advice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_what_the_diagnosis_says() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.backend = Some("epoll");
        diagnosis.io_uring.reason = Some("seccomp".to_owned());
        diagnosis.limits.nofile = Limit { soft: Some(1024), hard: None };
        let value: Value = serde_json::from_str(&report(&diagnosis, true)).unwrap();
        assert_eq!(value["backend"], "epoll");
        assert_eq!(value["io_uring"]["works"], false);
        assert_eq!(value["io_uring"]["reason"], "seccomp");
        assert_eq!(value["limits"]["nofile"], json!({ "soft": 1024, "hard": null }));
        assert_eq!(value["advice"], json!([]));
    }

    #[test]
    fn no_advice_is_said_too() {
        assert!(report(&Diagnosis::default(), false).ends_with("Nothing to change.\n"));
    }
}
