use rustix::io::Errno;

use super::*;

/// Every error of the system that has a number here, and some that have none.
fn all() -> impl Iterator<Item = io::Error> {
    (1..=200).map(io::Error::from_raw_os_error)
}

#[test]
fn an_error_of_one_connection_passes_a_shortage_pauses_and_the_rest_is_told() {
    // What Linux's manual of accept(2) says of each: the new connection's own pending errors.
    let of_the_connection = [
        Errno::CONNABORTED,
        Errno::NETDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        #[cfg(target_os = "linux")]
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
        // A firewall forbids it; the peer has reset it.
        Errno::PERM,
        Errno::CONNRESET,
        // Nothing has happened at all.
        Errno::INTR,
        Errno::AGAIN,
    ];
    let shortage = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    for error in all() {
        let number = Errno::from_io_error(&error).unwrap();
        assert_eq!(passes(&error), of_the_connection.contains(&number), "{error}");
        // A full quota has a kind of its own, and is a shortage like the full table of descriptors.
        let expected = shortage.contains(&number) || number == Errno::DQUOT;
        assert_eq!(runs_out(&error), expected, "{error}");
        assert!(!passes(&error) || !runs_out(&error), "{error} would be both");
        assert_eq!(is_cancelled(&error), number == Errno::CANCELED);
    }
    // What concerns the listener itself is told: a loop that passed it over would spin.
    for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::FAULT] {
        let error = io::Error::from(errno);
        assert!(!passes(&error) && !runs_out(&error) && !is_cancelled(&error), "{error}");
    }
}

#[test]
fn a_full_table_of_descriptors_is_a_shortage() {
    assert!(runs_out(&io::ErrorKind::QuotaExceeded.into()));
    assert!(!runs_out(&io::ErrorKind::Other.into()));
    assert!(
        !passes(&io::ErrorKind::ConnectionAborted.into()),
        "it comes with a number, or not at all"
    );
}
