//! Counts connections and handshakes of a door, in all and of each address. Of IPv6 the /64 counts: one host commands a whole one.
//!
//! Invariant: no address takes all places, so that others are let in. Used by [`crate::server`] and [`crate::channel`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// How many are let in.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Connections, handshakes included.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// Handshakes in progress of one address.
    pub handshakes_per_address: usize,
}

#[derive(Clone, Copy, Default)]
struct OfAddress {
    connections: usize,
    handshakes: usize,
}

struct State {
    caps: Caps,
    total: usize,
    of_address: HashMap<IpAddr, OfAddress>,
}

/// See the module.
pub struct Counts(Arc<Mutex<State>>);

/// A connection that is counted; dropping it takes it off.
pub struct Place {
    state: Arc<Mutex<State>>,
    address: IpAddr,
    is_handshake: bool,
}

fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

impl Counts {
    /// Nothing is open.
    pub fn new(caps: Caps) -> Self {
        Self(Arc::new(Mutex::new(State { caps, total: 0, of_address: HashMap::new() })))
    }

    /// Counts a connection that begins its handshake, or says which limit is reached.
    pub fn enter(&self, address: IpAddr) -> Result<Place, &'static str> {
        let address = counted(address);
        let mut state = self.0.lock();
        let caps = state.caps;
        if state.total >= caps.connections {
            return Err("too many connections are open");
        }
        let of_address = state.of_address.get(&address).copied().unwrap_or_default();
        if of_address.connections >= caps.connections_per_address {
            return Err("too many connections of this address are open");
        }
        if of_address.handshakes >= caps.handshakes_per_address {
            return Err("too many handshakes of this address are in progress");
        }
        state.total += 1;
        let entry = state.of_address.entry(address).or_default();
        entry.connections += 1;
        entry.handshakes += 1;
        Ok(Place { state: Arc::clone(&self.0), address, is_handshake: true })
    }
}

impl Place {
    /// The handshake is over.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.is_handshake)
            && let Some(entry) = self.state.lock().of_address.get_mut(&self.address)
        {
            entry.handshakes -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settle();
        let mut state = self.state.lock();
        state.total -= 1;
        if let Some(entry) = state.of_address.get_mut(&self.address) {
            entry.connections -= 1;
            if entry.connections == 0 {
                state.of_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_and_places_come_back() {
        let counts = Counts::new(Caps { connections: 4, connections_per_address: 3, handshakes_per_address: 2 });
        let enter = |address: &str| counts.enter(address.parse().unwrap());
        let (mut first, second) = (enter("10.0.0.1").unwrap(), enter("10.0.0.1").unwrap());
        assert!(enter("10.0.0.1").is_err(), "two handshakes");
        first.settle();
        let third = enter("10.0.0.1").unwrap();
        drop(second);
        let fourth = enter("10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_err(), "three connections");
        let other = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db9::1").is_err(), "four in all");
        drop((first, third, fourth, other));
        assert!(counts.0.lock().of_address.is_empty() && counts.0.lock().total == 0);
    }

    #[test]
    fn neighbours_of_an_ipv6_network_share_their_places() {
        let counts = Counts::new(Caps { connections: 9, connections_per_address: 9, handshakes_per_address: 1 });
        let _first = counts.enter("2001:db8::1".parse().unwrap()).unwrap();
        assert!(counts.enter("2001:db8::ffff:1".parse().unwrap()).is_err());
        assert!(counts.enter("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }
}
