//! What may cross threads and what may not, as far as the compiler can tell: this file is the test, and
//! it fails by not compiling.

use pelton::driver::{Driver, Lease, Notifier};
use pelton::io::PollStream;
use pelton::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpListener, TcpStream, WriteHalf};
use pelton::time::{Interval, Sleep};
use pelton::{Handle, JoinHandle, RemoteJoinHandle, Runtime};

/// Compiles where a type does *not* have a trait: with it, two implementations would match.
macro_rules! is_not {
    ($trait:path: $($type:ty),+ $(,)?) => {
        $(const _: fn() = || {
            trait Ambiguous<A> {
                fn only_one() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            #[allow(dead_code)]
            struct WithTheTrait;
            impl<T: ?Sized + $trait> Ambiguous<WithTheTrait> for T {}
            let _ = <$type as Ambiguous<_>>::only_one;
        };)+
    };
}

/// Compiles where a type has a trait.
macro_rules! is {
    ($trait:path: $($type:ty),+ $(,)?) => {
        $(const _: fn() = || {
            fn has<T: $trait>() {}
            has::<$type>();
        };)+
    };
}

// A reactor and what belongs to it stay on its thread.
is_not!(Send: Runtime, Driver, JoinHandle<()>, Lease);
is_not!(Send: TcpListener, TcpStream, PollStream, pelton::fs::File);
is_not!(Send: ReadHalf<'static>, WriteHalf<'static>, OwnedReadHalf, OwnedWriteHalf);
is_not!(Send: Sleep, Interval);
is_not!(Sync: Runtime, Driver, JoinHandle<()>, Lease);
is_not!(Sync: TcpListener, TcpStream, PollStream, pelton::fs::File, Sleep, Interval);

// What reaches a reactor from elsewhere goes anywhere.
is!(Send: Handle, Notifier, pelton::Closed, pelton::JoinError, pelton::driver::Error);
is!(Sync: Handle, Notifier, pelton::Closed, pelton::driver::Error);
is!(Send: RemoteJoinHandle<Vec<u8>>);

/// Futures are opaque, so each is asked for by the call that makes it.
macro_rules! is_not_send_future {
    ($($name:ident($($arg:ident: $type:ty),*) $make:block)+) => {
        $(#[allow(dead_code)]
        fn $name($($arg: $type),*) {
            trait Ambiguous<A> {
                fn only_one(&self) {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct WithTheTrait;
            impl<T: ?Sized + Send> Ambiguous<WithTheTrait> for T {}
            let future = $make;
            Ambiguous::<_>::only_one(&future);
        })+
    };
}

is_not_send_future! {
    connect() { TcpStream::connect("127.0.0.1:1") }
    recv(stream: &TcpStream) { stream.recv() }
    read(stream: &TcpStream) { stream.read(Vec::new()) }
    write(stream: &TcpStream) { stream.write_all("bytes") }
    accept(listener: &TcpListener) { listener.accept() }
    timeout(sleep: Sleep) { pelton::time::timeout(std::time::Duration::ZERO, sleep) }
}

#[test]
fn what_belongs_to_a_reactor_does_not_leave_its_thread() {
    // That this file compiles is what shows it.
}
