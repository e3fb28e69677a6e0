//! The ways into a node, and a connection's choice among nodes: its own node while that answers, else the next that does.
//!
//! Used by the senders of [`crate::load`]; a [`Line`] must live until receipts are settled, because the channel port pushes them to it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_base::fault::Fault;
use rustls::ClientConfig;

use crate::channel::{self, Session};
use crate::client::{Answer, Client, ClientError, parse_answers};
use crate::node;
use crate::options::{Options, Transport};
use crate::setup::Group;
use crate::supply::Prepared;

/// How the connections of a run reach nodes.
#[derive(Clone)]
pub struct Doors {
    /// Of the channel port; HTTP without.
    tls: Option<Arc<ClientConfig>>,
    /// Time for one request.
    patience: Duration,
}

impl Doors {
    /// As the options of one run say.
    pub fn new(options: &Options) -> Result<Self, Fault> {
        let directory = options.certificates.as_deref().unwrap_or(Path::new("."));
        let is_channel = options.door() == Transport::Channel;
        let tls = is_channel.then(|| channel::client_config(directory)).transpose()?;
        Ok(Self { tls, patience: options.request_patience() })
    }

    /// Requests over HTTP, whatever the load uses.
    pub fn http(options: &Options) -> Self {
        Self { tls: None, patience: options.request_patience() }
    }

    /// Whether receipts are pushed.
    pub fn pushes_receipts(&self) -> bool {
        self.tls.is_some()
    }
}

enum Door {
    Http(Client),
    Channel(Session),
}

/// See the module.
pub struct Line<'a> {
    group: &'a Group,
    doors: Doors,
    home: usize,
    /// One a node, opened when first used.
    open: Vec<Option<Door>>,
}

impl<'a> Line<'a> {
    /// A line whose own node is at position `home` of the group's nodes. Nothing is connected.
    pub fn new(group: &'a Group, doors: &Doors, home: usize) -> Self {
        Self { group, doors: doors.clone(), home, open: group.nodes.iter().map(|_| None).collect() }
    }

    /// The node that the next batch goes to.
    pub fn node(&self) -> usize {
        node::instead_of(&self.group.nodes, self.home)
    }

    /// Sends a batch to this node and waits for the answers. What fails without an answer is told to the node's record.
    pub fn submit(&mut self, node: usize, batch: &[Prepared]) -> Result<Vec<Answer>, ClientError> {
        let answers = self.door(node).and_then(|door| match door {
            Door::Http(client) => client.post(body(batch).as_bytes()).and_then(|answer| parse_answers(&answer)),
            Door::Channel(session) => session.submit(batch),
        });
        if let Err(error @ (ClientError::Unreachable(_) | ClientError::Transport(_))) = &answers {
            self.open[node] = None;
            self.group.nodes[node].failed(&error.to_string());
        }
        answers
    }

    fn door(&mut self, index: usize) -> Result<&Door, ClientError> {
        let node = &self.group.nodes[index];
        let slot = &mut self.open[index];
        if slot.as_ref().is_some_and(|door| matches!(door, Door::Channel(session) if session.is_lost())) {
            *slot = None;
        }
        match slot {
            Some(door) => Ok(door),
            None => Ok(slot.insert(match (&self.doors.tls, &node.channel) {
                (Some(tls), Some(address)) => {
                    Door::Channel(Session::connect(address, Arc::clone(tls), Arc::clone(&self.group.tracker), self.doors.patience)?)
                }
                _ => Door::Http(Client::new(&node.url, self.doors.patience)),
            })),
        }
    }
}

/// One request alone, several as a batch.
fn body(batch: &[Prepared]) -> String {
    if let [only] = batch {
        return only.request.to_string();
    }
    let mut body = String::with_capacity(2 + batch.iter().map(|item| item.request.len() + 1).sum::<usize>());
    for (index, item) in batch.iter().enumerate() {
        body.push(if index == 0 { '[' } else { ',' });
        body.push_str(&item.request);
    }
    body.push(']');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_request_is_no_batch() {
        let item = |id: u64| Prepared { id, request: format!("{{{id}}}").into(), ..Prepared::default() };
        assert_eq!(body(&[item(1)]), "{1}");
        assert_eq!(body(&[item(1), item(2)]), "[{1},{2}]");
    }
}
