use super::*;
use alloy_primitives::hex;

fn sample() -> Transaction {
    let mut data = hex!("4ed3885e0000000000000000000000000000000000000000000000000000000000000001").to_vec();
    data.truncate(36);
    Transaction {
        nonce: U256::from(1),
        gas_price: U256::from(30_000_000),
        gas: U256::from(30_000_000),
        block_limit: U256::from(600),
        to: Some(Address::from(hex!("6849f21d1e455e9f0712b1e99fa4fcd23758e8f1"))),
        data: data.into(),
        chain_id: U256::from(1),
        group_id: U256::from(1),
        ..Transaction::default()
    }
}

fn cow() -> KeyPair {
    KeyPair::from_secret(&keccak256("cow").0).unwrap()
}

const RAW: &str = "f88f018401c9c3808401c9c380820258946849f21d1e455e9f0712b1e99fa4fcd23758e8f180a44ed3885e00000000000000000000000000000000000000000000000000000000000000010101801ca083bec36cc7e37a2040edb7470969375ed53e0131f9c8a8c350d044db3333d0d6a05a4fb9500d6fdefdae51453fe5e06235385d192cb81ae60159a9c40292fedfae";

#[test]
fn published_vector_is_reproduced() {
    assert_eq!(sample().signing_digest().0, hex!("947627b0f501b986327e90e41af0a739c0be1ec35fa57be4338bbbcba5d85b6e"));
    let raw = sample().sign(&cow());
    assert_eq!(hex::encode(raw.encoded()), RAW);
    assert_eq!(raw.hash().0, hex!("76cc4e2ee3172e041d25c58767e2e2bdfa2f8cd21bc4ec03b3d9e287a3964d02"));
    let decoded = RawTx::decode(&hex::decode(RAW).unwrap()).unwrap();
    assert_eq!(decoded, raw);
    assert_eq!(decoded.verify().unwrap().sender(), cow().address());
}

#[test]
fn creation_vector_is_reproduced() {
    let creation = Transaction { to: None, ..sample() };
    assert_eq!(creation.signing_digest().0, hex!("48ff1b1d313cd893a03163a243afc035bce20b34e65a808747ab1d8a9726f3dc"));
    assert_eq!(creation.sign(&cow()).hash().0, hex!("7e35307cd578ae960983bc1c01b9c7add1d9ccfdf93d4b71d086bbb5fe0cc758"));
}

#[test]
fn bytes_around_the_list_and_wrong_kinds_are_refused() {
    let good = hex::decode(RAW).unwrap();
    assert_eq!(RawTx::decode(&[]), Err(DecodeError::NotAList));
    assert_eq!(RawTx::decode(&[0]), Err(DecodeError::NotAList));
    assert!(matches!(
        RawTx::decode(&good[..good.len() - 1]),
        Err(DecodeError::Envelope(RlpError::Undersize { announced: 145, available: 144 }))
    ));
    let trailing = [&good[..], &[0]].concat();
    assert!(matches!(RawTx::decode(&trailing), Err(DecodeError::Envelope(RlpError::Oversize { .. }))));
    assert!(matches!(RawTx::decode(&[0xff; 9]), Err(DecodeError::Envelope(_))));
    assert_eq!(RawTx::decode(&[0xc0]).unwrap_err().field(), "nonce");
    assert_eq!(RawTx::decode(&vec![0; MAX_TRANSACTION_BYTES + 1]), Err(DecodeError::TooLarge(MAX_TRANSACTION_BYTES + 1)));
}

#[test]
fn every_single_byte_change_is_refused_or_changes_hash_or_sender() {
    let good = hex::decode(RAW).unwrap();
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[position] ^= 1 << bit;
            if let Ok(raw) = RawTx::decode(&bytes) {
                // An empty list in place of an empty extraData is the same transaction.
                if raw.encoded()[..] == good[..] {
                    continue;
                }
                assert_ne!(raw.hash(), RawTx::decode(&good).unwrap().hash());
                if let Ok(verified) = raw.verify() {
                    assert_ne!(verified.sender(), cow().address());
                }
            }
        }
    }
}

/// Transactions signed by real SDKs; skipped where the recordings are not at hand.
#[test]
fn transactions_of_real_sdks_have_the_recorded_hashes_and_senders() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/transactions.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: no recordings at {path}");
        return;
    };
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut checked = 0;
    for list in ["vectors", "captured_on_the_wire"] {
        for vector in vectors[list].as_array().unwrap() {
            let (Some(raw), Some(hash)) = (vector["raw"].as_str(), vector["tx_hash"].as_str()) else { continue };
            let decoded = RawTx::decode(&hex::decode(raw).unwrap()).unwrap();
            assert_eq!(decoded.hash().to_string(), hash);
            if let Some(sighash) = vector["sighash"].as_str() {
                assert_eq!(decoded.fields().signing_digest().to_string(), sighash);
            }
            let verified = decoded.verify().unwrap();
            if let Some(sender) = vector["sender"].as_str() {
                assert_eq!(format!("{:#x}", verified.sender()), sender);
            }
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn refusals_and_hashes_are_those_of_the_reference_node() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/reference-node/reject.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: no recordings at {path}");
        return;
    };
    let recordings: serde_json::Value = serde_json::from_str(&text).unwrap();
    for case in recordings["cases"].as_array().unwrap() {
        let (Some(raw), name) = (case["raw"].as_str(), case["name"].as_str().unwrap()) else { continue };
        let Ok(bytes) = hex::decode(raw) else { continue };
        let outcome = RawTx::decode(&bytes).and_then(|raw| raw.verify().map_err(|_| DecodeError::Signature));
        let message = case["response"]["error"]["message"].as_str().unwrap_or_default();
        if let Some(hash) = case["response"]["result"].as_str() {
            assert_eq!(outcome.unwrap().hash().to_string(), hash, "{name}");
        } else if let Some(field) = message.split("invalid Field:").nth(1) {
            assert_eq!(outcome.unwrap_err().field(), field.split(',').next().unwrap(), "{name}");
        } else if message.contains("sizeRLP") {
            assert!(matches!(outcome, Err(DecodeError::Envelope(_))), "{name}");
        } else {
            assert!(outcome.is_ok(), "{name}: {message}");
        }
    }
}
