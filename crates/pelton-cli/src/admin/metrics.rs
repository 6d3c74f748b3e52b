//! The counters in Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use super::{Counter, ReactorReport, is_gauge};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All numbers of all reactors, one family after the other, as the format demands.
pub(crate) fn render(reports: &[ReactorReport]) -> String {
    let mut out = String::with_capacity(16 * 1024);
    info(&mut out, reports);
    // The first reactor names the families: all are made of the same parts.
    let Some(first) = reports.first() else { return out };
    for (name, _, help) in first.counters.iter().chain(&first.http) {
        let gauge = is_gauge(name);
        let family = if gauge { format!("pelton_{name}") } else { format!("pelton_{name}_total") };
        heading(&mut out, &family, help, if gauge { "gauge" } else { "counter" });
        for report in reports {
            if let Some(value) = find(report, name) {
                let _ = writeln!(out, "{family}{{reactor=\"{}\"}} {value}", report.id);
            }
        }
    }
    heading(&mut out, "pelton_in_flight", "Operations in flight, by kind.", "gauge");
    for report in reports {
        for (kind, value) in &report.in_flight {
            let kind = label(kind);
            let _ = writeln!(
                out,
                "pelton_in_flight{{reactor=\"{}\",kind=\"{kind}\"}} {value}",
                report.id
            );
        }
    }
    out
}

fn info(out: &mut String, reports: &[ReactorReport]) {
    heading(
        out,
        "pelton_info",
        "The backend of each reactor, and why it is not another. Always 1.",
        "gauge",
    );
    for report in reports {
        let backend = label(&report.backend);
        let fallback = label(report.fallback.as_deref().unwrap_or(""));
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(
            out,
            "pelton_info{{reactor=\"{}\",backend=\"{backend}\",fallback=\"{fallback}\",version=\"{version}\"}} 1",
            report.id
        );
    }
}

fn heading(out: &mut String, family: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {family} {}\n# TYPE {family} {kind}", help_text(help));
}

fn find(report: &ReactorReport, name: &str) -> Option<u64> {
    let mut all = report.counters.iter().chain(&report.http);
    all.find(|counter: &&Counter| counter.0 == name).map(|counter| counter.1)
}

/// In a help text a backslash and a line break are escaped.
fn help_text(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n")
}

/// In the value of a label a double quote is escaped as well.
fn label(text: &str) -> String {
    help_text(text).replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::report;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let text = render(&[report(0), report(1)]);
        let version = env!("CARGO_PKG_VERSION");
        let fallback = r#"io_uring: \"forbidden\"\nhere \\"#;
        let info = format!(r#"backend="epoll",fallback="{fallback}",version="{version}""#);
        let want = format!(
            "# HELP pelton_info The backend of each reactor, and why it is not another. Always 1.\n\
             # TYPE pelton_info gauge\n\
             pelton_info{{reactor=\"0\",{info}}} 1\n\
             pelton_info{{reactor=\"1\",{info}}} 1\n\
             # HELP pelton_completions_total Completions reaped.\n\
             # TYPE pelton_completions_total counter\n\
             pelton_completions_total{{reactor=\"0\"}} 10\n\
             pelton_completions_total{{reactor=\"1\"}} 11\n\
             # HELP pelton_buffers_in_use Buffers held.\n\
             # TYPE pelton_buffers_in_use gauge\n\
             pelton_buffers_in_use{{reactor=\"0\"}} 3\n\
             pelton_buffers_in_use{{reactor=\"1\"}} 3\n\
             # HELP pelton_http_requests_total Requests.\n\
             # TYPE pelton_http_requests_total counter\n\
             pelton_http_requests_total{{reactor=\"0\"}} 7\n\
             pelton_http_requests_total{{reactor=\"1\"}} 7\n\
             # HELP pelton_in_flight Operations in flight, by kind.\n\
             # TYPE pelton_in_flight gauge\n\
             pelton_in_flight{{reactor=\"0\",kind=\"accept\"}} 1\n\
             pelton_in_flight{{reactor=\"0\",kind=\"recv\"}} 0\n\
             pelton_in_flight{{reactor=\"1\",kind=\"accept\"}} 1\n\
             pelton_in_flight{{reactor=\"1\",kind=\"recv\"}} 0\n"
        );
        assert_eq!(text, want);
    }

    #[test]
    fn a_family_is_one_block_and_every_line_belongs_to_one() {
        let text = render(&[report(0), report(1), report(2)]);
        let mut seen = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let family = rest.split(' ').next().unwrap().to_owned();
                assert!(!seen.contains(&family), "{family} twice");
                seen.push(family);
            } else if !line.starts_with('#') {
                let family = line.split('{').next().unwrap();
                assert_eq!(seen.last().map(String::as_str), Some(family));
            }
        }
    }

    #[test]
    fn no_reactors_is_no_panic() {
        assert!(render(&[]).contains("pelton_info"));
    }
}
