use super::*;
use millrace_base::{GroupId, NodeId};

fn keys(count: usize) -> Vec<KeyPair> {
    let mut keys: Vec<KeyPair> = (1..=count).map(|i| KeyPair::from_secret(&[u8::try_from(i).unwrap(); 32]).unwrap()).collect();
    keys.sort_by_key(KeyPair::node_id);
    keys
}

fn epoch(keys: &[KeyPair], start: u64) -> Epoch {
    let sealers: Vec<NodeId> = keys.iter().map(KeyPair::node_id).collect();
    Epoch { start, sealers, tx_count_limit: 100, tx_gas_limit: 1, consensus_timeout_ms: 3000 }
}

fn engine(keys: &[KeyPair], own: usize) -> PbftEngine {
    PbftEngine::new(PbftConfig {
        domain: Domain { chain_id: 1, group: GroupId::new(1).unwrap(), genesis: B256::ZERO },
        key: keys[own].clone(),
        epoch: epoch(keys, 1),
        head_height: 0,
        head_hash: B256::ZERO,
        head_timestamp_ms: 0,
        records: Vec::new(),
    })
}

/// Carries effects out as a driver would, with a perfect executor; returns the final heights.
fn drive(engine: &mut PbftEngine, mut effects: Vec<Effect>, blocks: u64) -> Vec<(u64, Vec<BlockSignature>)> {
    let mut finals = Vec::new();
    let mut recorded = Vec::new();
    let mut now_ms = 1;
    while !effects.is_empty() {
        let mut next = Vec::new();
        for effect in effects {
            now_ms += 1;
            let input = match effect {
                Effect::Record { body, .. } => {
                    assert!(!recorded.contains(&body), "voted twice");
                    recorded.push(body);
                    continue;
                }
                Effect::Seal { height, .. } if height > blocks => continue,
                Effect::Seal { height, view, .. } => Input::Sealed { height, view, timestamp_ms: now_ms, transactions: Vec::new() },
                Effect::Execute(proposal) => {
                    let height = proposal.header.height;
                    Input::Executed { height, hash: B256::with_last_byte(u8::try_from(height).unwrap()), next_epoch: None }
                }
                Effect::Finalize { height, signatures, .. } => {
                    finals.push((height, signatures));
                    Input::Committed { height }
                }
                _ => panic!("unexpected {effect:?}"),
            };
            next.extend(engine.handle(input, now_ms));
        }
        effects = next;
    }
    finals
}

#[test]
fn one_sealer_is_a_quorum_that_takes_every_step() {
    let keys = keys(1);
    let mut engine = engine(&keys, 0);
    let effects = engine.start(0);
    let finals = drive(&mut engine, effects, 20);
    assert_eq!(finals.iter().map(|(height, _)| *height).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    for (height, signatures) in finals {
        let hash = B256::with_last_byte(u8::try_from(height).unwrap());
        assert_eq!(signatures.len(), 1);
        assert!(keys[0].node_id().verify(hash, &signatures[0].signature));
    }
}

#[test]
fn window_bounds_the_heights_in_flight() {
    let keys = keys(1);
    let mut engine = engine(&keys, 0);
    let mut asked = Vec::new();
    let mut effects = engine.start(0);
    while let Some(position) = effects.iter().position(|effect| matches!(effect, Effect::Seal { .. })) {
        let Effect::Seal { height, view, .. } = effects.swap_remove(position) else { unreachable!() };
        asked.push(height);
        effects = engine.handle(Input::Sealed { height, view, timestamp_ms: 1, transactions: Vec::new() }, 1);
    }
    assert_eq!(asked, (1..=WINDOW).collect::<Vec<_>>());
}

#[test]
fn epoch_change_voids_everything_above_it() {
    let keys = keys(1);
    let mut engine = engine(&keys, 0);
    let mut queue = engine.start(0);
    let mut executed = Vec::new();
    let mut voided = None;
    let mut epochs_asked = Vec::new();
    while let Some(effect) = (!queue.is_empty()).then(|| queue.remove(0)) {
        let input = match effect {
            Effect::Seal { height, view, limit, .. } if voided.is_none() || height == 3 => {
                epochs_asked.push((height, limit));
                Input::Sealed { height, view, timestamp_ms: 1, transactions: Vec::new() }
            }
            Effect::Execute(proposal) => {
                executed.push((proposal.header.height, proposal.header.epoch));
                // Execution of everything ordered so far waits, then block 2 changes the epoch.
                if proposal.header.height == 2 {
                    let next_epoch = Epoch { tx_count_limit: 7, ..epoch(&keys, 3) };
                    Input::Executed { height: 2, hash: B256::ZERO, next_epoch: Some(next_epoch) }
                } else if proposal.header.height == 1 || voided.is_some() {
                    Input::Executed { height: proposal.header.height, hash: B256::ZERO, next_epoch: None }
                } else {
                    continue;
                }
            }
            Effect::Finalize { height, .. } => Input::Committed { height },
            Effect::Void { above } => {
                voided = Some(above);
                continue;
            }
            _ => continue,
        };
        queue.extend(engine.handle(input, 1));
        if engine.status().final_height >= 3 {
            break;
        }
    }
    assert_eq!(voided, Some(2));
    assert_eq!(epochs_asked.last(), Some(&(3, 7)), "height 3 is proposed again under the new settings");
    let last = executed.last().unwrap();
    assert_eq!(last.1, Epoch { tx_count_limit: 7, ..epoch(&keys, 3) }.digest());
}
