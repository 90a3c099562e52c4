//! Sockets that listen, as one process gives them to the next: an address is bound once, however many processes serve it one after
//! the other.
//!
//! What a process was given is taken from here by its address, and what it listens on is kept here, so that it can be given on. A socket
//! that two processes hold has one queue: what waits in it is accepted by whoever accepts first.
//!
//! Not here: how sockets come from another process (`app`), binding an address that nobody has (`accept`).

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A socket that listens, and what for.
#[derive(Debug)]
pub struct Named {
    /// The key that asked for it, such as `gateway.listen`. Empty: given by the system.
    pub key: String,
    /// The address that was asked for; its port may be 0.
    pub asked: SocketAddr,
    /// It.
    pub socket: TcpListener,
}

/// See the module. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    given: Vec<Named>,
    kept: Vec<Named>,
}

impl Sockets {
    /// With what this process was given.
    pub fn given(given: Vec<Named>) -> Self {
        let inner = Inner {
            given,
            kept: Vec::new(),
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Takes all sockets of one address, if there are any. A port 0 fits those that were asked for alike.
    pub fn take(&self, key: &str, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let mut inner = self.lock();
        let mut wanted = address;
        if address.port() == 0 {
            let alike = |named: &&Named| named.key == key && named.asked == address;
            match inner.given.iter().find(alike) {
                Some(named) => wanted = named.socket.local_addr()?,
                None => return Ok(Vec::new()),
            }
        }
        let is_of = |named: &mut Named| named.socket.local_addr().is_ok_and(|own| own == wanted);
        let taken: Vec<_> = inner.given.extract_if(.., is_of).collect();
        drop(inner);
        let mut sockets = Vec::new();
        for Named { socket, .. } in taken {
            socket.set_nonblocking(true)?;
            sockets.push(socket);
        }
        Ok(sockets)
    }

    /// The socket of an address that has one only: given, or bound now. It is kept.
    pub fn listen(&self, key: &str, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = match self.take(key, address)?.pop() {
            Some(socket) => socket,
            None => super::listen_alone(address)?,
        };
        self.keep(key, address, &socket)?;
        Ok(socket)
    }

    /// Keeps a socket that this process listens on.
    pub fn keep(&self, key: &str, asked: SocketAddr, socket: &TcpListener) -> io::Result<()> {
        let named = Named {
            key: key.to_owned(),
            asked,
            socket: socket.try_clone()?,
        };
        self.lock().kept.push(named);
        Ok(())
    }

    /// What this process listens on, to be given on.
    pub fn to_give(&self) -> io::Result<Vec<Named>> {
        let again = |named: &Named| {
            Ok(Named {
                key: named.key.clone(),
                asked: named.asked,
                socket: named.socket.try_clone()?,
            })
        };
        self.lock().kept.iter().map(again).collect()
    }

    /// Lets go what was given and is not used; where it listened.
    pub fn unused(&self) -> Vec<SocketAddr> {
        let unused = std::mem::take(&mut self.lock().given);
        let addresses = unused.iter().map(|named| named.socket.local_addr());
        addresses.filter_map(Result::ok).collect()
    }

    /// Lets go what was kept: what listens elsewhere in this process ends when that does.
    pub fn let_go(&self) {
        self.lock().kept.clear();
    }

    /// A thread that panicked while it held the lock left whole entries behind.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn named(key: &str) -> Named {
        let asked = "127.0.0.1:0".parse().unwrap();
        Named {
            key: key.into(),
            asked,
            socket: TcpListener::bind(asked).unwrap(),
        }
    }

    #[test]
    fn sockets_are_taken_by_their_address_and_port_0_by_who_asked() {
        let any = "127.0.0.1:0".parse().unwrap();
        let all = [named("a"), named("b"), named("b")];
        let addresses = all.each_ref().map(|one| one.socket.local_addr().unwrap());
        let sockets = Sockets::given(all.into());
        let taken = |key, address| -> Vec<SocketAddr> {
            let taken = sockets.take(key, address).unwrap();
            taken.iter().map(|one| one.local_addr().unwrap()).collect()
        };
        assert_eq!(taken("b", any), [addresses[1]]);
        assert_eq!(taken("other", any), []);
        assert_eq!(taken("other", addresses[0]), [addresses[0]]);
        assert_eq!(taken("a", any), [], "it was taken");
        assert_eq!(sockets.unused(), [addresses[2]]);
        assert_eq!(taken("b", any), []);
    }

    #[test]
    fn all_sockets_of_an_address_go_together() {
        let one = named("a");
        let address = one.socket.local_addr().unwrap();
        let twin = Named {
            socket: one.socket.try_clone().unwrap(),
            key: "a".into(),
            asked: one.asked,
        };
        let sockets = Sockets::given(vec![one, named("b"), twin]);
        assert_eq!(sockets.take("", address).unwrap().len(), 2);
    }

    #[test]
    fn what_is_kept_listens_until_it_is_let_go() {
        let Named {
            key, asked, socket, ..
        } = named("a");
        let address = socket.local_addr().unwrap();
        let sockets = Sockets::default();
        sockets.keep(&key, asked, &socket).unwrap();
        drop(socket);
        assert_eq!(sockets.to_give().unwrap().len(), 1);
        std::net::TcpStream::connect(address).unwrap();
        sockets.let_go();
        // A process that another test has just forked may hold it for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < deadline, "it listens still");
        }
    }
}
