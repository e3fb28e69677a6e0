//! Counts incoming connections and those still in their handshake, in all and of each address. Of IPv6 the /64 counts: one host
//! commands a whole one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::NetworkLimits;

#[derive(Clone, Copy, Default)]
struct OfAddress {
    connections: usize,
    handshakes: usize,
}

#[derive(Default)]
struct State {
    connections: usize,
    handshakes: usize,
    of_address: HashMap<IpAddr, OfAddress>,
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<State>>);

/// A connection that is counted; dropping it takes it off.
pub(crate) struct Place {
    counts: Counts,
    address: IpAddr,
    is_handshake: bool,
}

fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

impl Counts {
    /// Counts a connection that begins its handshake, or says which limit is reached.
    pub fn enter(&self, address: IpAddr, limits: &NetworkLimits) -> Result<Place, &'static str> {
        let address = counted(address);
        let mut state = self.0.lock();
        let of_address = state.of_address.get(&address).copied().unwrap_or_default();
        if state.connections >= limits.connections {
            return Err("too many connections are open");
        }
        if state.handshakes >= limits.handshakes {
            return Err("too many handshakes are in progress");
        }
        if of_address.connections >= limits.connections_per_address {
            return Err("too many connections of this address are open");
        }
        if of_address.handshakes >= limits.handshakes_per_address {
            return Err("too many handshakes of this address are in progress");
        }
        state.connections += 1;
        state.handshakes += 1;
        let entry = state.of_address.entry(address).or_default();
        entry.connections += 1;
        entry.handshakes += 1;
        Ok(Place { counts: self.clone(), address, is_handshake: true })
    }
}

impl Place {
    /// The handshake is over.
    pub fn settle(&mut self) {
        if !std::mem::take(&mut self.is_handshake) {
            return;
        }
        let mut state = self.counts.0.lock();
        state.handshakes -= 1;
        if let Some(entry) = state.of_address.get_mut(&self.address) {
            entry.handshakes -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settle();
        let mut state = self.counts.0.lock();
        state.connections -= 1;
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
        let limits = NetworkLimits {
            connections: 4,
            connections_per_address: 3,
            handshakes_per_address: 2,
            handshakes: 3,
            ..NetworkLimits::default()
        };
        let counts = Counts::default();
        let enter = |address: &str| counts.enter(address.parse().unwrap(), &limits);
        let (mut first, second) = (enter("10.0.0.1").unwrap(), enter("10.0.0.1").unwrap());
        assert!(enter("10.0.0.1").is_err(), "two handshakes of the address");
        let other = enter("2001:db8::1").unwrap();
        assert!(enter("10.0.0.9").is_err(), "three handshakes in all");
        first.settle();
        let third = enter("10.0.0.1").unwrap();
        drop(second);
        assert!(enter("2001:db8::ffff:1").is_ok(), "a place came back");
        drop(other);
        let fourth = enter("10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_err(), "three connections of the address");
        drop((first, third, fourth));
        assert!(counts.0.lock().of_address.is_empty() && counts.0.lock().connections == 0 && counts.0.lock().handshakes == 0);
    }
}
