//! Networks of real nodes on free ports of this machine, and hostile ones that speak the protocol by hand.

mod exchange;
mod fixture;
mod hostile;
mod identity;
mod logged;
mod measure;
mod membership;
mod peers;
mod pressure;
mod sessions;
