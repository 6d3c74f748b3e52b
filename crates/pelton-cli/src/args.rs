//! The command line.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::HeaderValue;

use crate::access_log::Target;

/// A completion-based runtime, at work: serve files, or look at what would run here.
#[derive(Debug, Parser)]
#[command(name = "pelton", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a folder over HTTP.
    #[command(long_about = SERVE_ABOUT, after_long_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Say which backend would run here and why, what it can do, and what would help.
    Doctor(Doctor),
}

const SERVE_ABOUT: &str = "\
Serve a folder over HTTP/1.1.

Knows content types, ranges, conditional requests and precompressed twins: where `app.js.br`, `app.js.zst` or
`app.js.gz` lies beside `app.js` and is not older, it is sent to clients that take it. A folder shows its
`index.html`, or a listing. Dotfiles are not served, except in `.well-known`. Links are followed only while they
stay in the folder; absolute links are not followed.

Prints one line, `listening on http://ADDR backend=NAME reactors=N`, when it is ready, and a second one,
`fallback: REASON`, where the backend is not the first choice. SIGTERM and SIGINT let the requests under way
finish; a second one ends at once.

`/_pelton` shows the counters of every reactor live, `/_pelton/metrics` is for Prometheus. Both are served to
everybody who can reach the server: turn them off with --no-admin where that is not wanted.";

const SERVE_EXAMPLES: &str = "\
Examples:
  pelton serve                                  this folder, on http://127.0.0.1:8080
  pelton serve dist --listen :8080              to the network, on every address
  pelton serve dist --access-log - --no-admin   with a log on stdout and without counters
  pelton serve --listen 127.0.0.1:0             on a free port; the line that is printed says which";

/// The options of `pelton serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// The folder to serve.
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,

    /// Where to listen: ADDRESS:PORT, NAME:PORT, or :PORT for every address. Port 0 takes a free
    /// one.
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Listen,

    /// How many reactors, each on a thread of its own, or `auto` for one per core.
    #[arg(short, long, value_name = "N|auto", default_value = "auto")]
    pub(crate) reactors: Reactors,

    /// Which backend to use. `auto` takes the best one that works here, or what PELTON_BACKEND
    /// names. Any other is used or the program ends: there is no silent fallback from a choice.
    #[arg(short, long, value_name = "NAME", default_value = "auto")]
    pub(crate) backend: Backend,

    /// Close connections beyond this many per reactor as they come.
    #[arg(long, value_name = "N", default_value = "10000")]
    pub(crate) max_connections: NonZeroUsize,

    /// Log each request, in the combined format with the duration in microseconds behind it, to a
    /// file, to stdout (`-`) or not at all (`none`). A file that is renamed away is created anew.
    #[arg(long, value_name = "FILE|-|none", default_value = "none")]
    pub(crate) access_log: Log,

    /// How long the requests under way may take at the end, in seconds; 0 cuts them at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_seconds: u32,

    /// How long a client may take to send the head of a request, in seconds; 0 is for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) header_timeout: u32,

    /// How long a connection may be idle between two requests, in seconds; 0 is for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) idle_timeout: u32,

    /// How long a client may take none of an answer that is being sent, in seconds; 0 is for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) send_timeout: u32,

    /// Send this `Cache-Control` with every file, such as `public, max-age=3600`.
    #[arg(long, value_name = "VALUE", value_parser = cache_control)]
    pub(crate) cache_control: Option<HeaderValue>,

    /// Answer 404 for a folder without an index, in place of a listing.
    #[arg(long)]
    pub(crate) no_listing: bool,

    /// Do not serve the counters under `/_pelton`.
    #[arg(long)]
    pub(crate) no_admin: bool,

    /// Say on stderr what was found and changed at the start, such as the limit on open files.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// The options of `pelton doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON, for machines and bug reports.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A backend by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The best one that works here.
    #[default]
    Auto,
    /// Linux's completion queue.
    #[value(name = "io_uring", alias = "io-uring", alias = "uring")]
    IoUring,
    /// Linux's readiness, wherever io_uring is not allowed.
    Epoll,
    /// The completion ports of Windows.
    Iocp,
}

/// How many reactors to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reactors {
    /// One for each core that this process may use.
    Auto,
    /// So many.
    Count(NonZeroUsize),
}

/// More reactors than this help nobody, and each costs a ring and its buffers.
const MAX_REACTORS: usize = 1024;

impl Reactors {
    pub(crate) fn count(self) -> usize {
        match self {
            Reactors::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Reactors::Count(n) => n.get(),
        }
    }
}

impl FromStr for Reactors {
    type Err = String;

    fn from_str(text: &str) -> Result<Reactors, String> {
        if text == "auto" {
            return Ok(Reactors::Auto);
        }
        match text.parse::<NonZeroUsize>() {
            Ok(n) if n.get() <= MAX_REACTORS => Ok(Reactors::Count(n)),
            _ => Err(format!("a number from 1 to {MAX_REACTORS}, or `auto`")),
        }
    }
}

/// An address to listen on, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen(String);

impl Listen {
    /// The address. A name is looked up, which can take a while.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        if let Some(port) = self.0.strip_prefix(':').and_then(|port| port.parse().ok()) {
            return Ok(SocketAddr::from(([0; 8], port)));
        }
        let found = self.0.to_socket_addrs().map_err(|error| {
            format!("cannot look up {}: {error}. Name an address, such as 127.0.0.1:8080.", self.0)
        })?;
        let mut found: Vec<_> = found.collect();
        // `localhost` is both; the older one is what more tools try first.
        found.sort_by_key(SocketAddr::is_ipv6);
        found.into_iter().next().ok_or_else(|| format!("{} has no address.", self.0))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        const FORMS: &str = "ADDRESS:PORT, [IPV6]:PORT, NAME:PORT or :PORT";
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Listen(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or(format!("no port in it; write {FORMS}"))?;
        if port.is_empty()
            || !port.bytes().all(|b| b.is_ascii_digit())
            || port.parse::<u16>().is_err()
        {
            return Err(format!("`{port}` is no port; write {FORMS}"));
        }
        if host.contains([':', '/', ' ', '[', ']']) {
            return Err(format!("`{host}` is no address; write {FORMS}"));
        }
        Ok(Listen(text.to_owned()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the access log goes, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log(pub(crate) Option<Target>);

impl FromStr for Log {
    type Err = String;

    fn from_str(text: &str) -> Result<Log, String> {
        Ok(Log(match text {
            "" => return Err("a file, `-` or `none`".to_owned()),
            "none" => None,
            "-" => Some(Target::Stdout),
            path => Some(Target::File(path.into())),
        }))
    }
}

fn cache_control(text: &str) -> Result<HeaderValue, String> {
    match HeaderValue::try_from(text) {
        Ok(value) if !text.trim().is_empty() && text.is_ascii() => Ok(value),
        _ => Err("a header value, such as `public, max-age=3600`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(args: &[&str]) -> Result<Serve, clap::Error> {
        let all = ["pelton", "serve"].iter().chain(args);
        match Cli::try_parse_from(all)?.command {
            Command::Serve(serve) => Ok(serve),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_options_it_serves_this_folder_to_this_machine() {
        let serve = serve(&[]).unwrap();
        assert_eq!(serve.dir, PathBuf::from("."));
        assert_eq!(serve.listen.resolve(), Ok("127.0.0.1:8080".parse().unwrap()));
        assert_eq!((serve.reactors, serve.backend), (Reactors::Auto, Backend::Auto));
        assert_eq!((serve.max_connections.get(), serve.drain_seconds), (10_000, 30));
        let timeouts = (serve.header_timeout, serve.idle_timeout, serve.send_timeout);
        assert_eq!(timeouts, (10, 60, 60));
        assert_eq!(serve.access_log, Log(None));
        assert!(!serve.no_admin && !serve.no_listing && serve.cache_control.is_none());
        assert!(serve.reactors.count() >= 1);
    }

    #[test]
    fn options_are_read() {
        let serve = serve(&[
            "dist",
            "--listen",
            ":0",
            "--reactors",
            "3",
            "--backend",
            "io_uring",
            "--access-log",
            "-",
            "--drain-seconds",
            "0",
            "--cache-control",
            "no-cache",
            "--max-connections",
            "5",
            "--header-timeout",
            "0",
            "--idle-timeout",
            "0",
            "--send-timeout",
            "0",
            "--no-admin",
            "--verbose",
        ])
        .unwrap();
        assert_eq!(serve.dir, PathBuf::from("dist"));
        assert_eq!(serve.listen.resolve(), Ok("[::]:0".parse().unwrap()));
        assert_eq!((serve.reactors.count(), serve.backend), (3, Backend::IoUring));
        assert_eq!(serve.access_log, Log(Some(Target::Stdout)));
        assert_eq!((serve.drain_seconds, serve.max_connections.get()), (0, 5));
        assert_eq!(serve.cache_control.unwrap(), "no-cache");
        let timeouts = (serve.header_timeout, serve.idle_timeout, serve.send_timeout);
        assert_eq!(timeouts, (0, 0, 0), "for ever");
        assert!(serve.no_admin && serve.verbose);
    }

    #[test]
    fn bad_values_are_refused_with_the_name_of_their_option() {
        let table: &[(&str, &[&str])] = &[
            (
                "--listen",
                &[
                    "8080",
                    "",
                    ":",
                    ":x",
                    ":99999",
                    "127.0.0.1",
                    "127.0.0.1:",
                    "::1:80x",
                    "a b:80",
                    "http://x:80",
                    ":+80",
                ],
            ),
            ("--reactors", &["0", "-1", "many", "1025", "", "1.5"]),
            ("--backend", &["kqueue", "", "EPOLL "]),
            ("--max-connections", &["0", "x"]),
            ("--drain-seconds", &["-1", "soon"]),
            ("--header-timeout", &["-1", "x", "1.5", ""]),
            ("--idle-timeout", &["-1"]),
            ("--send-timeout", &["soon", "4294967296"]),
            ("--access-log", &[""]),
            ("--cache-control", &["", "a\nb", "é"]),
        ];
        for (option, values) in table {
            for value in *values {
                let joined = format!("{option}={value}");
                let error = serve(&[&joined]).expect_err(&joined).to_string();
                assert!(error.contains(option), "{joined}: {error}");
            }
        }
        assert!(Cli::try_parse_from(["pelton", "serve", "a", "b"]).is_err());
        assert!(Cli::try_parse_from(["pelton"]).is_err());
        assert!(Cli::try_parse_from(["pelton", "bless"]).is_err());
    }

    #[test]
    fn addresses_of_every_form_are_understood() {
        for (text, want) in
            [("0.0.0.0:80", "0.0.0.0:80"), ("[::1]:8080", "[::1]:8080"), (":8080", "[::]:8080")]
        {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.resolve(), Ok(want.parse().unwrap()), "{text}");
        }
        let name: Listen = "name.invalid:80".parse().unwrap();
        assert!(name.resolve().unwrap_err().contains("name.invalid:80"));
    }

    #[test]
    fn doctor_can_speak_json() {
        let cli = Cli::try_parse_from(["pelton", "doctor", "--json"]).unwrap();
        assert!(matches!(cli.command, Command::Doctor(Doctor { json: true })));
    }
}
