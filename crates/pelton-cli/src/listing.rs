//! The page that shows a folder without an index.

use std::cmp::Ordering;
use std::fmt::Write;
use std::time::SystemTime;

use crate::date::Date;
use crate::path::encode;

/// Entries beyond this are counted and not shown: the page is made in memory.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name as the system has it.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) modified: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Folder,
    /// A file and its size in bytes.
    File(u64),
}

/// Folders first, then by name without regard to case; equal ones by their bytes, so that the order
/// is total.
pub(crate) fn sort(entries: &mut [Entry]) {
    fn compare(a: &Entry, b: &Entry) -> Ordering {
        let is_file = |entry: &Entry| matches!(entry.kind, EntryKind::File(_));
        let folded = |entry: &Entry| String::from_utf8_lossy(&entry.name).to_lowercase();
        is_file(a)
            .cmp(&is_file(b))
            .then_with(|| folded(a).cmp(&folded(b)))
            .then_with(|| a.name.cmp(&b.name))
    }
    entries.sort_by(compare);
}

/// The page. `path` is the folder's decoded path, `/` or `/a/b`; `more` is how many entries are
/// left out.
pub(crate) fn page(path: &str, entries: &[Entry], more: usize) -> String {
    let mut html = String::with_capacity(2_048 + entries.len() * 160);
    let title = escape(path);
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>"
    );
    crumbs(&mut html, path);
    html.push_str("</h1>\n");
    let folders = entries.iter().filter(|e| e.kind == EntryKind::Folder).count();
    let _ = writeln!(
        html,
        "<p>{}, {}</p>",
        count(folders, "folder", "folders"),
        count(entries.len() - folders, "file", "files")
    );
    html.push_str(
        "<table>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Size</th>\
         <th scope=\"col\">Changed (UTC)</th></tr></thead>\n<tbody>\n",
    );
    if !path.trim_matches('/').is_empty() {
        html.push_str("<tr class=\"d\"><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n");
    }
    for entry in entries {
        row(&mut html, entry);
    }
    html.push_str("</tbody>\n</table>\n");
    if more > 0 {
        let _ = writeln!(html, "<p>and {} not shown</p>", count(more, "entry", "entries"));
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// A size for a person: whole bytes up to a kibibyte, then three digits.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be printed as 1024 belongs to the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Text that can stand in an element or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters have no place in HTML, and a line break in a name would look like
            // two names.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = include_str!("listing.css");

fn row(html: &mut String, entry: &Entry) {
    let name = escape(&String::from_utf8_lossy(&entry.name));
    // The colon is encoded too, so that no name can be read as a scheme.
    let href = encode(&entry.name);
    let (class, slash, size) = match entry.kind {
        EntryKind::Folder => ("d", "/", String::new()),
        EntryKind::File(bytes) => ("f", "", size(bytes)),
    };
    // Isolated, so that a name in a script that runs from right to left does not turn its
    // neighbours around.
    let _ = write!(
        html,
        "<tr class=\"{class}\"><td><a href=\"./{href}{slash}\"><bdi>{name}</bdi>{slash}</a></td><td>{size}</td><td>"
    );
    if let Some(modified) = entry.modified {
        let Date { year, month, day, hour, minute, .. } = Date::of(modified);
        let _ = write!(html, "<time>{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}</time>");
    }
    html.push_str("</td></tr>\n");
}

/// The path as links to the folders above.
fn crumbs(html: &mut String, path: &str) {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let up = |html: &mut String, levels: usize, name: &str| {
        let href = if levels == 0 { "./".to_owned() } else { "../".repeat(levels) };
        let _ = write!(html, "<a href=\"{href}\">{name}</a>");
    };
    up(html, names.len(), "~");
    for (at, name) in names.iter().enumerate() {
        html.push_str("<span>/</span>");
        up(html, names.len() - 1 - at, &format!("<bdi>{}</bdi>", escape(name)));
    }
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(name: &str) -> Entry {
        Entry { name: name.into(), kind: EntryKind::File(1), modified: None }
    }

    fn folder(name: &str) -> Entry {
        Entry { name: name.into(), kind: EntryKind::Folder, modified: None }
    }

    #[test]
    fn names_cannot_become_markup_or_schemes() {
        let names = [
            "<script>alert(1)</script>",
            "\"onmouseover=\"x",
            "a'b&c",
            "javascript:alert(1)",
            "line\nbreak",
            "?q#f",
        ];
        let entries: Vec<_> = names.iter().map(|name| file(name)).collect();
        let html = page("/<b>/x", &entries, 0);
        for bad in
            ["<script", "<b>", "\"onmouse", "a'b", "href=\"javascript", "line\nbreak", "./?q"]
        {
            assert!(!html.contains(bad), "{bad} in {html}");
        }
        for good in [
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "./%3Cscript%3Ealert%281%29%3C%2Fscript%3E",
            "a&#39;b&amp;c",
            "./javascript%3Aalert%281%29",
            "line\u{fffd}break",
            "./line%0Abreak",
            "./%3Fq%23f",
            "<title>/&lt;b&gt;/x</title>",
        ] {
            assert!(html.contains(good), "no {good} in {html}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_shown_as_well_as_may_be_and_linked_exactly() {
        let entry = Entry { name: b"\xffx".to_vec(), kind: EntryKind::Folder, modified: None };
        let html = page("/", &[entry], 0);
        assert!(html.contains("<a href=\"./%FFx/\"><bdi>\u{fffd}x</bdi>/</a>"), "{html}");
    }

    #[test]
    fn folders_come_first_and_names_are_sorted_without_case() {
        let mut entries =
            [file("b"), file("A"), folder("z"), file("a"), folder("Y"), file("Ä"), file("C")];
        sort(&mut entries);
        let names: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(&e.name)).collect();
        assert_eq!(names, ["Y", "z", "A", "a", "b", "C", "Ä"]);
    }

    #[test]
    fn the_way_up_is_linked_but_not_from_the_root() {
        assert!(!page("/", &[], 0).contains("href=\"../"));
        let html = page("/a/b", &[], 0);
        assert!(html.contains("<a href=\"../../\">~</a>"), "{html}");
        assert!(html.contains("<a href=\"../\"><bdi>a</bdi></a>"));
        assert!(html.contains("<a href=\"./\"><bdi>b</bdi></a>"));
        assert!(html.contains("<a href=\"../\">..</a>"));
    }

    #[test]
    fn sizes_dates_and_counts_are_for_people() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024 - 1, "10.0 KiB"),
            (100 * 1024 + 600, "101 KiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, want) in table {
            assert_eq!(size(bytes), want);
        }
        let mut entry = file("x");
        entry.modified = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_399));
        let html = page("/", &[entry], 3);
        assert!(html.contains("<time>2000-02-28 23:59</time>"));
        assert!(html.contains("0 folders, 1 file<"));
        assert!(html.contains("and 3 entries not shown"));
    }
}
