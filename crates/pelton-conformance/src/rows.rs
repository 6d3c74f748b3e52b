//! The tests of the older systems: every one is shown by a behaviour, or has a word why it is not.

use crate::registry::Source;

/// A row of another system's tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub source: Source,
    /// Its name there.
    pub name: &'static str,
    /// Why no behaviour shows it; empty where one does.
    pub not: &'static str,
}

macro_rules! rows {
    ($($source:ident { $($name:literal $(not $why:literal)?,)+ })+) => {
        /// Every row.
        pub const ROWS: &[Row] = &[$($(
            Row { source: Source::$source, name: $name, not: concat!($($why)?) },
        )+)+];
    };
}

rows! {
    Aws {
        "event_loop_xthread_scheduled_tasks_execute",
        "event_loop_canceled_tasks_run_in_el_thread",
        "event_loop_completion_events" not "IOCP",
        "event_loop_subscribe_unsubscribe",
        "event_loop_writable_event_on_subscribe",
        "event_loop_no_readable_event_before_write",
        "event_loop_readable_event_after_write",
        "event_loop_readable_event_on_subscribe_if_data_present",
        "event_loop_readable_event_on_2nd_time_readable",
        "event_loop_no_events_after_unsubscribe",
        "event_loop_stop_then_restart",
        "event_loop_multiple_stops",
        "event_loop_group_setup_and_shutdown",
        "event_loop_group_setup_and_shutdown_async",
        "numa_aware_event_loop_group_setup_and_shutdown" not "hardware: the test would need several nodes",
        "event_loop_creation",
        "event_loop_serialized_scheduling",
        "io_testing_channel" not "channels",
        "pipe_open_close",
        "pipe_read_write",
        "pipe_read_write_large_buffer",
        "pipe_readable_event_sent_after_write",
        "pipe_readable_event_sent_once",
        "pipe_readable_event_sent_on_subscribe_if_data_present",
        "pipe_readable_event_sent_on_resubscribe_if_data_present",
        "pipe_readable_event_sent_again_after_all_data_read",
        "pipe_error_event_sent_after_write_end_closed",
        "pipe_error_event_sent_on_subscribe_if_write_end_already_closed",
        "pipe_writes_are_fifo",
        "pipe_clean_up_cancels_pending_writes",
        "pipe tests, two loops",
        "socket_posix_creation",
        "socket_winsock_creation" not "IOCP",
        "local_socket_communication",
        "tcp_socket_communication",
        "socket_tcp_nodelay",
        "udp_socket_communication",
        "udp_bind_connect_communication",
        "test_socket_with_bind_to_interface" not "interfaces",
        "test_socket_with_bind_to_invalid_interface" not "interfaces",
        "test_is_network_interface_name_valid" not "interfaces",
        "vsock_loopback_socket_communication" not "vsock",
        "connect_timeout",
        "connect_timeout_cancelation",
        "cleanup_before_connect_or_timeout_doesnt_explode",
        "outgoing_local_sock_errors" not "no paths of Unix sockets",
        "outgoing_tcp_sock_error",
        "incoming_tcp_sock_errors",
        "incoming_duplicate_tcp_bind_errors",
        "incoming_udp_sock_errors",
        "bind_on_zero_port_tcp_ipv4",
        "bind_on_zero_port_udp_ipv4",
        "wrong_thread_read_write_fails" not "cannot be written: neither is `Send`",
        "cleanup_in_accept_doesnt_explode",
        "cleanup_in_write_cb_doesnt_explode",
        "sock_write_cb_is_async",
        "local_socket_pipe_connected_race" not "elsewhere: pelton-driver/tests/named_pipes.rs",
        "socket_validate_port" not "cannot be written: a port is a `u16`",
        "parse_ipv4/ipv6 valid/invalid" not "std parses addresses",
        "socket_handler: echo_and_backpressure",
        "socket_handler: close",
        "socket_handler: read_to_eof_after_peer_hangup",
        "socket_handler: multi-frame data",
        "socket_handler: pinned_event_loop",
        "socket_handler: pinned_event_loop_dns_failure",
        "socket_handler: open_channel_statistics" not "channels",
        "channel: setup" not "channels",
        "channel: slots_clean_up" not "channels",
        "channel: refcount_delays_clean_up",
        "channel: tasks_run",
        "channel: tasks_serialized_run",
        "channel: rejects_post_shutdown_tasks",
        "channel: cancels_pending_tasks",
        "channel: duplicate_shutdown",
        "channel: window_update" not "channels",
        "channel: keeps_event_loop_group_alive",
        "channel: connect_some_hosts_timeout" not "addresses are tried in order, without a limit of its own",
        "host_resolver: TTL, refresh, failures, starvation, purge" not "no cache of names",
        "host_resolver: ipv4/ipv6 literals",
        "host_resolver: multiple lookups round robin" not "no cache of names",
        "future: callback is its own task",
        "future: set multiple times keeps first",
        "future: wait timeout",
        "future: can die incomplete",
        "retry, stream and TLS tests" not "above the loop",
        "vcc models" not "models, not tests: loom's are in the crates",
    }
    Reseau {
        "pipe cloexec flags" not "elsewhere: pelton-driver/tests/descriptors.rs",
        "epoll fd cloexec" not "elsewhere: pelton-driver/tests/descriptors.rs",
        "backend creation contract",
        "future scheduling timing",
        "stress scheduling",
        "pipe subscribe stress",
        "subscription payload owned by handle",
        "additional_data cleared after unsubscribe",
        "group thread affinity",
        "unsubscribe when not subscribed",
        "syscall error mapping to ERROR event",
        "callback mutates another subscription",
        "serialized ordering under dual-producer contention",
        "kqueue serialized stress" not "kqueue",
        "destroy cancels pending task",
        "destroy on loop thread throws",
        "wait_for_stop_completion thread-guarded",
        "group destroy idempotent",
        "message pool sharing per loop",
        "load factor 0 at start",
        "clock override" not "the simulated system's clock is virtual throughout",
        "epoll task pre-queue drain",
        "cross-thread burst",
        "wait buffer grows",
        "duplicate scheduling keeps future timestamp",
        "cancel-schedule churn on the same id",
        "exact-capacity wait",
        "close releases subscription roots",
        "rejects blocking descriptors" not "deliberately otherwise: both kinds are served",
        "kqueue rejects empty mask" not "cannot be written: an interest is one of two",
        "kqueue cancelled unsubscribe still cleans up" not "kqueue",
        "kqueue close with active subscriptions",
        "kqueue off-thread and stopped-loop unsubscribe" not "kqueue",
        "IOCP: OVERLAPPED_ENTRY layout, status, stop state, wake latches" not "IOCP",
        "socket_tests, pipe_tests: as aws-c-io",
    }
    ReseauMain {
        "sleep/timedwait on poller",
        "wake reason precedence",
        "backend delay semantics",
        "earlier deadline wakes poll",
        "register/pollwait/deregister",
        "stale token suppression",
        "stale close keeps active registration",
        "shutdown-safe control paths",
        "shutdown wakes timer waiters, cancels waiters and timers",
        "expired drain allocates nothing" not "elsewhere: pelton-driver/tests/allocations.rs",
        "shutdown wakes idle poller promptly",
        "chunk bounds",
        "read waits then wakes",
        "contiguous views" not "Julia",
        "read deadline",
        "absolute deadlines",
        "stale timer does not poison",
        "stale cancelled wake retried",
        "combined deadline one heap entry",
        "close evicts blocked waiters",
        "shutdown closes waiters",
        "shutdown drains IOCP before releasing raw buffers" not "IOCP",
        "control refs delay destruction",
        "not-pollable mapping",
        "wait_canceled",
        "fdlock close wakes queued",
        "PR #135: bounce buffers, ERROR_NOT_FOUND fence, reuse, re-init" not "IOCP",
        "pointer-sized handles" not "cannot be written: the types say it",
        "cloexec+nonblocking" not "elsewhere: pelton/tests/flags.rs",
        "close errors" not "a close has no errors that its caller could mend",
        "read/write/recv/send wrappers",
        "connect completion and accept flags",
        "wildcard dial mapping" not "the system's: a connect goes to the address that it is given",
        "addresses",
        "self-connect and EADDRNOTAVAIL retry" not "no retry: the error is told",
        "local bind" not "a socket that connects is not bound before",
        "single read",
        "read before peer close",
        "half-close stress",
        "NODELAY/KEEPALIVE defaults",
        "refused connect",
        "accept unblocks on close",
        "deadline reset",
        "combined deadline",
        "listener deadline",
        "blocked read unblocks on close, close idempotent",
        "EOF serialization",
        "controls race close",
        "happy-eyeballs fallback" not "addresses are tried in order",
        "both families fail",
        "singleflight, cache" not "no cache of names",
        "dual-stack wildcard",
    }
    Ioxide {
        "HardeningTests: CQ overflow" ,
        "HardeningTests: harness start tests" not "the harness's own",
        "AffinityTests",
        "CoreTests: echo",
        "CoreTests: keep-alive",
        "CoreTests: 50 fresh",
        "CoreTests: pipelined",
        "CoreTests: fragmented",
        "CoreTests: Grow/Segmented",
        "CoreTests: SEND_ZC" not "no zero-copy sends",
        "CoreTests: incremental",
        "CoreTests: ExtraPorts",
        "CoreTests: recv-queue overflow",
        "CoreTests: DecRef-then-throw",
        "CoreTests: flush/close race",
        "CoreTests: Stop teardown fd count",
        "SendInFlightRecycleTests",
        "AcceptExhaustionTests" not "elsewhere: pelton/tests/listen.rs counts the process's descriptors",
        "ReactorSetupTeardownTests",
        "TcpTimeoutTests",
        "TimerTests",
        "RecvBufferReclaimTests",
        "PipeReaderContract/StreamContract",
        "ExecInheritanceTests" not "elsewhere: pelton-driver/tests/descriptors.rs",
        "UdpTests",
        "SyscallErrnoTests",
        "RingSetupMessageTests" not "elsewhere: pelton-driver/src/sys/uring/setup.rs",
        "ClockTests",
        "Chaos: byte by byte",
    }
    Libxev {
        "loop time",
        "stop",
        "timer",
        "timer reset",
        "timer reset before tick",
        "timer reset after trigger",
        "timer cancel",
        "cancel a completed op",
        "socket accept/connect/send/recv/close",
        "recv cancellation",
        "accept cancellation",
        "file IO",
        "offset IO",
        "zero-length read",
        "pty both ways" not "no terminals",
        "queued writes",
        "process wait",
        "async wait",
        "async notify first",
        "async batching",
        "million-entry heap",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviours;

    #[test]
    fn every_row_is_shown_by_a_behaviour_or_has_a_word_why_not() {
        for row in ROWS {
            let shown = behaviours().iter().any(|behaviour| {
                behaviour.origins.iter().any(|o| (o.source, o.row) == (row.source, row.name))
            });
            let name = format!("{} {:?}", row.source.name(), row.name);
            assert!(shown || !row.not.is_empty(), "no behaviour comes from {name}");
            assert!(!shown || row.not.is_empty(), "a behaviour comes from {name} after all");
        }
    }

    #[test]
    fn every_origin_is_a_row() {
        for behaviour in behaviours() {
            for origin in behaviour.origins {
                let known = ROWS.iter().any(|r| (r.source, r.name) == (origin.source, origin.row));
                assert!(known, "{}: {origin:?} is no row", behaviour.name);
            }
        }
    }

    #[test]
    fn no_two_behaviours_have_one_name() {
        let mut names: Vec<_> = behaviours().iter().map(|b| (b.subject, b.name)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
