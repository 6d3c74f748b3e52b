//! Addresses, and names that have to be looked up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What can be connected to or bound: an address, several, or a host name with a port.
///
/// A name is looked up by the system on the blocking pool, never on the reactor's thread.
pub trait ToSocketAddrs {
    /// The addresses, or the name to look up.
    fn to_addresses(&self) -> Addresses;
}

/// See [`ToSocketAddrs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Known already.
    Known(Vec<SocketAddr>),
    /// To be looked up: `host:port`.
    Name(String),
}

impl Addresses {
    /// Looks the name up, if it is one.
    ///
    /// # Errors
    /// There is no such host, or no port was given.
    pub async fn resolve(self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Addresses::Known(addresses) => Ok(addresses),
            Addresses::Name(name) => {
                let bad = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
                let Some((host, port)) = name.rsplit_once(':') else {
                    return Err(bad("no port was given: say `host:port`"));
                };
                let Ok(port) = port.parse() else {
                    return Err(bad("what follows the last `:` is no port: say `host:port`"));
                };
                let host = host.to_owned();
                crate::spawn_blocking(move || pelton_driver::lookup(&host, port)).await?
            }
        }
    }
}

macro_rules! known {
    ($($address:ty,)+) => {$(
        impl ToSocketAddrs for $address {
            fn to_addresses(&self) -> Addresses {
                Addresses::Known(vec![(*self).into()])
            }
        }
    )+};
}

known! { SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16), }

impl ToSocketAddrs for [SocketAddr] {
    fn to_addresses(&self) -> Addresses {
        Addresses::Known(self.to_vec())
    }
}

impl ToSocketAddrs for str {
    fn to_addresses(&self) -> Addresses {
        match self.parse() {
            Ok(address) => Addresses::Known(vec![address]),
            Err(_) => Addresses::Name(self.to_owned()),
        }
    }
}

impl ToSocketAddrs for String {
    fn to_addresses(&self) -> Addresses {
        self.as_str().to_addresses()
    }
}

impl ToSocketAddrs for (&str, u16) {
    fn to_addresses(&self) -> Addresses {
        match self.0.parse::<IpAddr>() {
            Ok(ip) => Addresses::Known(vec![(ip, self.1).into()]),
            Err(_) => Addresses::Name(format!("{}:{}", self.0, self.1)),
        }
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    fn to_addresses(&self) -> Addresses {
        (**self).to_addresses()
    }
}
