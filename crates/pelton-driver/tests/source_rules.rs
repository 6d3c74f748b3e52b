//! Rules of the rooms of Windows that a reader of the source can check, on every system.

use std::path::{Path, PathBuf};

/// The lines of code of a folder below `src/sys`, each with where it stands.
fn code(folder: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut folders: Vec<PathBuf> =
        vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sys").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap();
                lines.push((format!("{}:{}", path.display(), number + 1), code.to_owned()));
            }
        }
    }
    assert!(lines.len() > 500, "{folder} is here");
    lines
}

fn none_has(lines: &[(String, String)], is_wrong: impl Fn(&str) -> bool) {
    for (place, line) in lines {
        assert!(!is_wrong(line), "{place}: {line}");
    }
}

#[test]
fn no_code_reads_a_status_or_a_count_from_a_packet() {
    none_has(&code("iocp"), |line| {
        let from_packet = line.contains("entry.Internal") || line.contains("entries[");
        let count = line.contains("dwNumberOfBytesTransferred") && !line.contains("offset_of!");
        from_packet || count
    });
}

#[test]
fn nothing_asks_for_a_procedure_call_and_no_wait_is_alertable() {
    const CALLS: &[&str] =
        &["QueueUserAPC", "ReadFileEx", "WriteFileEx", "SleepEx", "WSAWaitForMultipleEvents"];
    for folder in ["iocp", "windows"] {
        let lines = code(folder);
        none_has(&lines, |line| CALLS.iter().any(|call| line.contains(call)));
    }
    // The last argument says whether the wait is alertable.
    let lines = code("iocp");
    let waits: Vec<usize> = (0..lines.len())
        .filter(|&at| lines[at].1.contains("GetQueuedCompletionStatusEx("))
        // What stands in for it in builds for tests.
        .filter(|&at| !lines[at].1.contains("fn "))
        .collect();
    assert!(!waits.is_empty(), "the room waits somewhere");
    for at in waits {
        let call = &lines[at..lines.len().min(at + 12)];
        let end = call.iter().position(|(_, line)| line.trim_start().starts_with(')'));
        let end = end.expect("it is written over several lines and ends soon");
        let last = call[end - 1].1.trim().trim_end_matches(',');
        assert!(last == "FALSE" || last == "0", "{}: `{last}`", lines[at].0);
    }
}
