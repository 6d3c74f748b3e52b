//! What is served, and what is not.

use std::fs::File;
use std::os::unix::fs::{FileExt, symlink};
use std::time::{Duration, SystemTime};

use crate::client::request;
use crate::on_each_backend;
use crate::server::{Folder, Server, pattern};

on_each_backend! {
    files_of_any_size_arrive_whole
    a_range_may_lie_beyond_four_gigabytes
    head_ranges_and_conditions_are_answered_as_asked
    a_folder_is_its_index_or_its_listing
    nothing_outside_of_the_folder_is_served
    a_twin_is_sent_to_who_takes_it
}

fn files_of_any_size_arrive_whole(backend: &str) {
    let folder = Folder::new();
    let large = pattern(20 << 20);
    let sizes = [0, 1, 4095, 65_536, 65_537, 131_073, 1 << 20, large.len()];
    for size in sizes {
        folder.write(&size.to_string(), &large[..size]);
    }
    let server = Server::start(backend, &folder, &[]);
    let mut client = server.connect();
    // Twice: from the disk, and from what is held open.
    for size in sizes.into_iter().chain(sizes) {
        let answer = client.get(&format!("/{size}"), "");
        assert_eq!((answer.status, answer.body.len()), (200, size));
        assert!(answer.body == large[..size], "{size} bytes, and not the right ones");
    }
    let numbers = client.numbers();
    let misses = sizes.len() as u64;
    assert_eq!(numbers.of("http_cache_misses"), misses);
    assert!(numbers.of("blocking_jobs") >= misses, "files are opened on the pool");
    assert_eq!(client.get("/none", "").status, 404);
}

fn a_range_may_lie_beyond_four_gigabytes(backend: &str) {
    let folder = Folder::new();
    let file = File::create(folder.path().join("huge")).unwrap();
    let border = 1_u64 << 32;
    file.write_all_at(b"around the border", border - 8).unwrap();
    file.set_len(border + (1 << 20)).unwrap();
    let server = Server::start(backend, &folder, &[]);
    let mut client = server.connect();
    let range = format!("Range: bytes={}-{}\r\n", border - 8, border + 8);
    let answer = client.get("/huge", &range);
    assert_eq!((answer.status, answer.text().as_str()), (206, "around the border"));
    let head = client.head("/huge", "");
    assert_eq!(head.header("content-length"), (border + (1 << 20)).to_string());
}

fn head_ranges_and_conditions_are_answered_as_asked(backend: &str) {
    let folder = Folder::new();
    let large = pattern(300_000);
    folder.write("large.bin", &large);
    folder.write("small.txt", "0123456789");
    let server = Server::start(backend, &folder, &[]);
    let mut client = server.connect();

    let get = client.get("/large.bin", "");
    let head = client.head("/large.bin", "");
    assert_eq!((head.status, head.header("content-length")), (200, "300000"));
    assert_eq!(head.without_date().headers, get.without_date().headers);

    for (range, start, end) in
        [("0-0", 0, 1), ("100-250000", 100, 250_001), ("-5", 299_995, 300_000)]
    {
        let answer = client.get("/large.bin", &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/300000", end - 1));
        assert!(answer.body == large[start..end], "{range}");
    }
    let answer = client.get("/small.txt", "Range: bytes=0-1,8-9\r\n");
    assert!(answer.header("content-type").starts_with("multipart/byteranges"));
    assert!(answer.text().contains("bytes 8-9/10\r\n\r\n89\r\n--"), "{}", answer.text());
    let answer = client.get("/small.txt", "Range: bytes=10-\r\n");
    assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */10"));

    let answer = client.get("/small.txt", "");
    let (tag, date) = (answer.header("etag"), answer.header("last-modified"));
    for (line, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"other\", {tag}\r\n"), 304),
        ("If-None-Match: \"other\"\r\n".to_owned(), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        ("If-Match: \"other\"\r\n".to_owned(), 412),
        (format!("If-Range: {tag}\r\nRange: bytes=2-3\r\n"), 206),
        ("If-Range: \"other\"\r\nRange: bytes=2-3\r\n".to_owned(), 200),
    ] {
        let answer = client.get("/small.txt", &line);
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.header("etag"), tag);
    }
}

fn a_folder_is_its_index_or_its_listing(backend: &str) {
    let folder = Folder::new();
    folder.write("with/index.html", "<p>the index</p>");
    folder.write("without/a & b.txt", "x");
    let server = Server::start(backend, &folder, &[]);
    let mut client = server.connect();
    let answer = client.get("/with?q=1", "");
    assert_eq!((answer.status, answer.header("location")), (308, "/with/?q=1"));
    assert_eq!(client.get("/with/", "").text(), "<p>the index</p>");
    let listing = client.get("/without/", "");
    assert_eq!(listing.header("content-type"), "text/html; charset=utf-8");
    assert!(listing.text().contains("a &amp; b.txt"), "{}", listing.text());

    let quiet = Server::start(backend, &folder, &["--no-listing", "--no-admin"]);
    let mut client = quiet.connect();
    assert_eq!(client.get("/with/", "").status, 200);
    assert_eq!(client.get("/without/", "").status, 404);
    assert_eq!(client.get("/_pelton", "").status, 404);
}

fn nothing_outside_of_the_folder_is_served(backend: &str) {
    const SECRET: &str = "the secret";
    let outer = Folder::new();
    let secret = outer.write("secret.txt", SECRET);
    // The folder that is served lies in another one of the same owner.
    let folder = Folder::new();
    folder.write("inside.txt", "inside");
    folder.write(".hidden", SECRET);
    symlink(&secret, folder.path().join("absolute-link")).unwrap();
    let relative = format!("../{}/secret.txt", outer.path().file_name().unwrap().to_str().unwrap());
    symlink(&relative, folder.path().join("relative-link")).unwrap();
    symlink("inside.txt", folder.path().join("inner-link")).unwrap();
    let server = Server::start(backend, &folder, &[]);
    let mut client = server.connect();
    assert_eq!(client.get("/inner-link", "").text(), "inside");
    let encoded = relative.replace('.', "%2e").replace('/', "%2F");
    for path in [
        format!("/{relative}"),
        format!("/{encoded}"),
        format!("/x/../{relative}"),
        format!("//{relative}"),
        format!("/..\\{relative}"),
        format!("/%2e%2e%5c{relative}"),
        format!("/%252e%252e/{relative}"),
        format!("/%c0%ae%c0%ae/{relative}"),
        format!("/.{}", secret.display()),
        format!("{}", secret.display()),
        "/absolute-link".to_owned(),
        "/relative-link".to_owned(),
        "/.hidden".to_owned(),
        "/%2ehidden".to_owned(),
        "/inside.txt%00.html".to_owned(),
        "/proc/self/environ".to_owned(),
    ] {
        let answer = client.get(&path, "");
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(!answer.text().contains(SECRET), "{path}");
    }
    // A target that is no path at all is no request.
    client.say(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", &relative));
    assert_eq!(client.hear().status, 400);
}

fn a_twin_is_sent_to_who_takes_it(backend: &str) {
    let folder = Folder::new();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in ["app.js", "app.js.gz", "app.js.br"] {
        let path = folder.write(name, name);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    let server = Server::start(backend, &folder, &["--cache-control", "max-age=60"]);
    let mut client = server.connect();
    for (accept, coding, body) in [
        ("gzip", "gzip", "app.js.gz"),
        ("gzip, br", "br", "app.js.br"),
        ("br;q=0, gzip", "gzip", "app.js.gz"),
        ("zstd", "", "app.js"),
    ] {
        let answer = client.get("/app.js", &format!("Accept-Encoding: {accept}\r\n"));
        assert_eq!((answer.text().as_str(), answer.header("content-encoding")), (body, coding));
        assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert_eq!(answer.header("cache-control"), "max-age=60");
    }
    client.say(request("GET", "/app.js", "Connection: close\r\n"));
    assert_eq!(client.hear().text(), "app.js");
    client.hear_the_end();
}
