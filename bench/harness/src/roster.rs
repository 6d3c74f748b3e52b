//! The servers: their names in tables, their programs and arguments.

/// A server as it can be started. The name is what tables, results and `--servers` use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) binary: &'static str,
    pub(crate) args: &'static [&'static str],
}

/// The row that a second process of the reference gets in every cell.
pub(crate) const COPY: &str = "a/a";
/// A second process of the raw epoll loop, in cells that have one: what its kernel's waits spread by, which is not what
/// the ring's do. In no table.
pub(crate) const COPY_EPOLL: &str = "a/a raw-epoll";

pub(crate) const RAW_URING: &str = "raw-uring";
pub(crate) const RAW_SINGLE: &str = "raw-uring-single";
/// The raw loop with a wait that gathers: what batching can at best save.
pub(crate) const RAW_BATCHED: &str = "raw-uring-batched";
pub(crate) const RAW_EPOLL: &str = "raw-epoll";
/// With a buffer for each connection, as Pelton's owned reads have.
pub(crate) const RAW_EPOLL_OWNED: &str = "raw-epoll-owned";
pub(crate) const TOKIO: &str = "tokio";
pub(crate) const URING_OWNED: &str = "pelton-uring-owned";
pub(crate) const URING_LEASED: &str = "pelton-uring-leased";
pub(crate) const EPOLL_OWNED: &str = "pelton-epoll-owned";
pub(crate) const EPOLL_LEASED: &str = "pelton-epoll-leased";
pub(crate) const BATCHED: &str = "pelton-uring-batched";
/// The same with the next receive submitted beside the send: one call a request at one connection.
pub(crate) const AHEAD: &str = "pelton-uring-ahead";
/// Continuations queued behind the tick that brought them.
pub(crate) const QUEUED: &str = "pelton-queued";
/// Continuations on the pool of threads, each by itself.
pub(crate) const OFFLOADED: &str = "pelton-offloaded";
/// Continuations on a thread, a whole tick's together.
pub(crate) const COALESCED: &str = "pelton-coalesced";
pub(crate) const HTTP_URING: &str = "http-pelton-uring";
pub(crate) const HTTP_EPOLL: &str = "http-pelton-epoll";
pub(crate) const HTTP_TOKIO: &str = "http-tokio";
pub(crate) const HTTP_COMPIO: &str = "http-compio";
pub(crate) const AXUM_PELTON: &str = "axum-pelton";
pub(crate) const AXUM_TOKIO: &str = "axum-tokio";

/// The copies that are measured where others are divided by `reference`: each with what it is a second process of.
pub(crate) fn copies(
    reference: &'static str,
    wanted: &[&str],
) -> Vec<(&'static str, &'static str)> {
    let of_epoll = wanted.contains(&RAW_EPOLL) && reference != RAW_EPOLL;
    std::iter::once((COPY, reference)).chain(of_epoll.then_some((COPY_EPOLL, RAW_EPOLL))).collect()
}

/// The copy that says how far to trust what is divided by `other`, and what it is a copy of. `None` where the copy of
/// the reference does.
pub(crate) fn copy_for(other: &str) -> Option<(&'static str, &'static str)> {
    [RAW_EPOLL, RAW_EPOLL_OWNED].contains(&other).then_some((COPY_EPOLL, RAW_EPOLL))
}

/// Pelton's four ways to echo.
pub(crate) const PELTON_ECHO: [&str; 4] = [URING_OWNED, URING_LEASED, EPOLL_OWNED, EPOLL_LEASED];

/// The decomposition: the same echo with its continuation inline, queued, offloaded, and offloaded with
/// coalesced wakes. The first is what the others are divided by.
pub(crate) const MODES: [&str; 4] = [URING_OWNED, QUEUED, OFFLOADED, COALESCED];

/// A name, a program and its arguments.
pub(crate) type Row = (&'static str, &'static str, &'static [&'static str]);

const ROWS: &[Row] = &[
    (RAW_URING, "echo-raw-uring", &[]),
    (RAW_SINGLE, "echo-raw-uring", &["--mode", "single"]),
    (RAW_BATCHED, "echo-raw-uring", &["--batch-wait-us", "50"]),
    (RAW_EPOLL, "echo-raw-epoll", &[]),
    (RAW_EPOLL_OWNED, "echo-raw-epoll", &["--mode", "owned"]),
    (URING_OWNED, "echo-pelton", &["--backend", "io_uring", "--mode", "owned"]),
    (URING_LEASED, "echo-pelton", &["--backend", "io_uring", "--mode", "leased"]),
    (EPOLL_OWNED, "echo-pelton", &["--backend", "epoll", "--mode", "owned"]),
    (EPOLL_LEASED, "echo-pelton", &["--backend", "epoll", "--mode", "leased"]),
    (
        BATCHED,
        "echo-pelton",
        &["--backend", "io_uring", "--mode", "leased", "--batch-wait-us", "50"],
    ),
    (
        AHEAD,
        "echo-pelton",
        &["--backend", "io_uring", "--mode", "leased", "--batch-wait-us", "50", "--read-ahead"],
    ),
    (QUEUED, "echo-pelton", &["--backend", "io_uring", "--mode", "owned", "--dispatch", "queued"]),
    (
        OFFLOADED,
        "echo-pelton",
        &["--backend", "io_uring", "--mode", "owned", "--dispatch", "offload"],
    ),
    (
        COALESCED,
        "echo-pelton",
        &["--backend", "io_uring", "--mode", "owned", "--dispatch", "offload-coalesced"],
    ),
    (TOKIO, "echo-tokio", &[]),
    ("mio", "echo-mio", &[]),
    ("compio", "echo-compio", &[]),
    ("compio-tuned", "echo-compio", &["--tuned"]),
    ("monoio", "echo-monoio", &[]),
    ("monoio-tuned", "echo-monoio", &["--tuned"]),
    ("glommio", "echo-glommio", &[]),
    ("tokio-uring", "echo-tokio-uring", &[]),
    ("tokio-uring-tuned", "echo-tokio-uring", &["--tuned"]),
    ("smol", "echo-smol", &[]),
    (HTTP_URING, "http-pelton-hyper", &["--backend", "io_uring"]),
    (HTTP_EPOLL, "http-pelton-hyper", &["--backend", "epoll"]),
    (HTTP_TOKIO, "http-tokio-hyper", &[]),
    (HTTP_COMPIO, "http-compio-hyper", &[]),
    (AXUM_PELTON, "http-axum-pelton", &["--reactors", "2"]),
    (AXUM_TOKIO, "http-axum-tokio", &["--threads", "2"]),
];

/// The programs of the microbenchmarks, which take no load, and what tables call them.
pub(crate) const MICRO: &[Row] = &[
    ("pelton io_uring", "micro-pelton", &["--backend", "io_uring"]),
    ("pelton epoll", "micro-pelton", &["--backend", "epoll"]),
    ("raw", "micro-raw", &[]),
    ("tokio", "micro-tokio", &[]),
    ("compio", "micro-compio", &[]),
    ("compio tuned", "micro-compio", &["--tuned"]),
    ("monoio", "micro-monoio", &[]),
    ("smol", "micro-smol", &[]),
];

pub(crate) fn all() -> Vec<Spec> {
    ROWS.iter().map(|&(name, binary, args)| Spec { name: name.to_owned(), binary, args }).collect()
}

pub(crate) fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.0).collect()
}

pub(crate) fn spec(name: &str) -> Option<Spec> {
    all().into_iter().find(|spec| spec.name == name)
}

/// Pelton's own rows, which the plots show in colour.
pub(crate) fn is_pelton(name: &str) -> bool {
    name.contains("pelton")
}

/// The raw loops, which stand for the limit.
pub(crate) fn is_raw(name: &str) -> bool {
    name.starts_with("raw-")
}

/// A server in a way of its own, for one question: not one of the ways in which servers are compared.
pub(crate) fn is_variant(name: &str) -> bool {
    [RAW_BATCHED, BATCHED, AHEAD, QUEUED, OFFLOADED, COALESCED].contains(&name)
}

pub(crate) fn is_http(name: &str) -> bool {
    name.starts_with("http-") || name.starts_with("axum-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_epoll_loop_has_a_copy_where_it_is_not_the_reference() {
        let both = copies(RAW_URING, &[RAW_EPOLL, TOKIO]);
        assert_eq!(both, [(COPY, RAW_URING), (COPY_EPOLL, RAW_EPOLL)]);
        assert_eq!(copies(RAW_EPOLL, &[RAW_EPOLL]), [(COPY, RAW_EPOLL)]);
        assert_eq!(copies(TOKIO, &[URING_OWNED]), [(COPY, TOKIO)]);
    }

    #[test]
    fn names_are_unique_and_none_is_the_copy() {
        let mut names: Vec<String> = all().into_iter().map(|spec| spec.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| name != COPY && name != COPY_EPOLL));
    }
}
