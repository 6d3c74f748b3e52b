//! `pelton serve`: from the options to reactors, and the words at the start and at the end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::access_log::{AccessLog, Target};
use crate::admin::Admin;
use crate::app::Shared;
use crate::args::Serve;
use crate::files::Site;
use crate::reactor::Settings;
use crate::root::Root;
use crate::watch::Limits;

/// How long the end waits for the access log to be written.
pub(crate) const LOG_LIMIT: Duration = Duration::from_secs(2);

/// Serves until a signal ends it.
///
/// # Errors
/// A sentence that says what to do.
pub(crate) fn run(options: &Serve) -> Result<(), String> {
    let shared = shared(options, None)?;
    let address = options.listen.resolve()?;
    let (reactors, settings) = (options.reactors.count(), settings(options));
    let _ = (shared, address, reactors, settings);
    Err("this build has no runtime in it yet.".to_owned())
}

/// Everything of the options that the reactors share.
///
/// # Errors
/// A sentence that says what to do.
pub(crate) fn shared(options: &Serve, admin: Option<Admin>) -> Result<Shared, String> {
    let root = Root::open(&options.dir).map_err(|error| explain_folder(&options.dir, &error))?;
    let log = match &options.access_log.0 {
        None => None,
        Some(target) => {
            let log = AccessLog::open(target).map_err(|error| explain_log(target, &error))?;
            Some(Arc::new(log))
        }
    };
    let site =
        Site { root, listing: !options.no_listing, cache_control: options.cache_control.clone() };
    Ok(Shared { site, log, admin })
}

/// What a reactor is to keep to.
pub(crate) fn settings(options: &Serve) -> Settings {
    let seconds = |n: u32| Duration::from_secs(n.into());
    Settings {
        max_connections: options.max_connections.get(),
        drain: seconds(options.drain_seconds),
        limits: Limits {
            head: seconds(options.header_timeout),
            idle: seconds(options.idle_timeout),
            ..Limits::default()
        },
    }
}

/// What is printed when everything listens: one line, and a second one where the backend is not the
/// first choice.
pub(crate) fn announcement(
    address: SocketAddr,
    backend: &str,
    reactors: usize,
    fallback: Option<&str>,
) -> String {
    let mut text = format!("listening on http://{address} backend={backend} reactors={reactors}\n");
    if let Some(reason) = fallback {
        // One line, whatever a reason is made of: scripts read this.
        let reason: Vec<&str> = reason.split_whitespace().collect();
        text.push_str(&format!("fallback: {}\n", reason.join(" ")));
    }
    text
}

/// Why a folder cannot be served, and what would help.
pub(crate) fn explain_folder(folder: &Path, error: &io::Error) -> String {
    let folder = folder.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no folder {folder}. Name one that exists: `pelton serve DIR`.")
        }
        io::ErrorKind::NotADirectory => {
            format!("{folder} is not a folder. Name the folder that holds it: `pelton serve DIR`.")
        }
        io::ErrorKind::PermissionDenied => format!(
            "this user may not read {folder}. Run as one who may, or give the right with `chmod o+rx`."
        ),
        _ => format!("{folder} cannot be opened: {error}."),
    }
}

/// Why an address cannot be listened on, and what would help.
pub(crate) fn explain_bind(address: SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens on {address} already. Stop it (`ss -ltnp 'sport = :{port}'` shows which it \
             is), or choose another port: `--listen {}`.",
            SocketAddr::new(ip, 0)
        ),
        io::ErrorKind::PermissionDenied if port != 0 && port < 1024 => format!(
            "ports below 1024 are not for every user. Choose one above (`--listen {}`), or allow it: \
             `setcap cap_net_bind_service=+ep` on the program, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the \
             systemd unit.",
            SocketAddr::new(ip, 8080)
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "this process may not listen on {address}: look for a sandbox or a firewall policy."
            )
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "{ip} is not an address of this machine. `ip address` lists those that are; `--listen :{port}` takes \
             all of them."
        ),
        _ => format!("cannot listen on {address}: {error}."),
    }
}

fn explain_log(target: &Target, error: &io::Error) -> String {
    match target {
        Target::Stdout => format!("no thread for the access log: {error}."),
        Target::File(path) => format!(
            "the access log {} cannot be opened: {error}. Name a file in a folder that exists and that this user \
             may write to, `-` for stdout, or `none`.",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_announcement_is_one_line_or_two() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(
            announcement(address, "io_uring", 2, None),
            "listening on http://127.0.0.1:8080 backend=io_uring reactors=2\n"
        );
        let six: SocketAddr = "[::]:80".parse().unwrap();
        assert_eq!(
            announcement(six, "epoll", 1, Some("seccomp forbids\n it")),
            "listening on http://[::]:80 backend=epoll reactors=1\nfallback: seccomp forbids it\n"
        );
    }

    #[test]
    fn errors_at_the_start_name_the_cure() {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
        let low: SocketAddr = "0.0.0.0:80".parse().unwrap();
        let high: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        for (text, cure) in [
            (explain_bind(high, &AddrInUse.into()), "sport = :8080"),
            (explain_bind(low, &PermissionDenied.into()), "cap_net_bind_service"),
            (explain_bind(high, &PermissionDenied.into()), "sandbox"),
            (explain_bind(high, &AddrNotAvailable.into()), "--listen :8080"),
            (explain_folder(Path::new("/x"), &NotFound.into()), "pelton serve DIR"),
            (explain_folder(Path::new("/x"), &PermissionDenied.into()), "chmod"),
        ] {
            assert!(text.contains(cure) && text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn options_that_cannot_be_met_are_told_before_anything_starts() {
        use clap::Parser;
        let folder = Folder::new();
        let options = |args: &[&str]| {
            let all = ["pelton", "serve"].iter().chain(args);
            match crate::args::Cli::parse_from(all).command {
                crate::args::Command::Serve(serve) => serve,
                crate::args::Command::Doctor(_) => unreachable!(),
            }
        };
        let dir = folder.path().to_str().unwrap();
        let error = shared(&options(&[&format!("{dir}/none")]), None).unwrap_err();
        assert!(error.contains("there is no folder"), "{error}");
        let log = format!("{dir}/none/access.log");
        let error = shared(&options(&[dir, "--access-log", &log]), None).unwrap_err();
        assert!(error.contains("access log"), "{error}");
        let shared = shared(&options(&[dir, "--no-listing"]), None).unwrap();
        assert!(!shared.site.listing && shared.log.is_none());
        let settings = settings(&options(&["--idle-timeout", "5"]));
        assert_eq!(settings.limits.idle, Duration::from_secs(5));
    }
}
