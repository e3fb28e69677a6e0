//! Whole chains out of one database and into another, cut, changed and of others.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

use millrace_core::Storage;
use millrace_core::storage::memory::MemoryStorage;

use super::*;
use crate::test_chain::{TestChain, content, genesis};

/// Goes on to the end.
fn on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn order(target: &Path) -> Export<'_> {
    Export { chain_id: 1, group: GroupId::new(1).unwrap(), target, from: None, to: None }
}

fn export(chain: &TestChain, export: &Export<'_>, progress: &mut Progress<'_>) -> Result<ExportReport, ArchiveError> {
    let view = chain.storage.snapshot().unwrap();
    export_blocks(&*view, chain.height(), export, progress)
}

fn empty() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

fn importer(storage: &Arc<dyn Storage>, chain: &TestChain) -> Importer {
    Importer::open(Arc::clone(storage), 1, &chain.genesis).unwrap()
}

fn refusal(error: ArchiveError) -> (u64, String) {
    match error {
        ArchiveError::Refused { offset, detail, .. } => (offset, detail),
        other => panic!("not a refusal: {other}"),
    }
}

#[test]
fn exported_chain_with_a_change_of_sealers_is_imported_to_the_same_database() {
    let mut chain = TestChain::new(4);
    chain.grow(3, 5);
    chain.add_sealer(4);
    chain.grow(4, 3);
    chain.grow(1, 0);
    let directory = tempfile::tempdir().unwrap();
    let report = export(&chain, &order(directory.path()), &mut on).unwrap();
    assert_eq!((report.first, report.last, report.found, report.is_complete), (1, 9, 0, true));
    assert_eq!(files_in(directory.path(), GroupId::new(1).unwrap()).unwrap(), std::slice::from_ref(&report.file));
    let target = empty();
    let imported = importer(&target, &chain).import(&report.file, &mut on).unwrap();
    assert_eq!((imported.blocks, imported.transactions, imported.height, imported.is_complete), (9, 28, 9, true));
    assert_eq!(content(&*target), content(&*chain.storage));
    // Once more changes nothing.
    let again = importer(&target, &chain).import(&report.file, &mut on).unwrap();
    assert_eq!((again.blocks, again.known, again.height), (0, 9, 9));
}

#[test]
fn chain_with_tries_and_one_whose_blocks_a_majority_signed_are_imported_to_the_same_database() {
    for mut chain in [TestChain::with_tries(2), TestChain::raft(5)] {
        chain.grow(4, 3);
        let directory = tempfile::tempdir().unwrap();
        let report = export(&chain, &order(directory.path()), &mut on).unwrap();
        let target = empty();
        let imported = importer(&target, &chain).import(&report.file, &mut on).unwrap();
        assert_eq!((imported.blocks, imported.is_complete), (4, true));
        assert_eq!(content(&*target), content(&*chain.storage));
        crate::verify::verify_database(&*target, &mut |_| ()).unwrap();
        chain.signers = 1;
        chain.grow(1, 1);
        let file = directory.path().join("too-few");
        export(&chain, &order(&file), &mut on).unwrap();
        assert!(refusal(importer(&target, &chain).import(&file, &mut on).unwrap_err()).1.contains("1 distinct sealers signed"));
    }
}

#[test]
fn export_that_was_stopped_or_cut_anywhere_goes_on_to_the_same_file() {
    let mut chain = TestChain::new(1);
    chain.grow(6, 4);
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    export(&chain, &order(&whole), &mut on).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let part = directory.path().join("part");
    let stopped = export(&chain, &order(&part), &mut |done, _| if done == 2 { ControlFlow::Break(()) } else { on(done, 6) }).unwrap();
    assert_eq!((stopped.last, stopped.is_complete), (2, false));
    let rest = export(&chain, &order(&part), &mut on).unwrap();
    assert_eq!((rest.found, rest.last, rest.is_complete), (2, 6, true));
    assert_eq!(fs::read(&part).unwrap(), bytes);
    for end in (0..bytes.len()).step_by(37) {
        fs::write(&part, &bytes[..end]).unwrap();
        match export(&chain, &order(&part), &mut on) {
            Ok(report) => assert!(report.is_complete && fs::read(&part).unwrap() == bytes, "cut at {end}"),
            // Without its first record nobody can tell whose file it is.
            Err(error) => assert!(refusal(error).1.contains("another file"), "cut at {end}"),
        }
    }
}

#[test]
fn changed_byte_or_a_file_that_ends_early_is_refused_with_its_place_and_what_came_before_stays() {
    let mut chain = TestChain::new(1);
    chain.grow(3, 2);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("blocks");
    export(&chain, &order(&file), &mut on).unwrap();
    let bytes = fs::read(&file).unwrap();
    for at in (0..bytes.len()).step_by(11) {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        fs::write(&file, &changed).unwrap();
        let target = empty();
        let (offset, detail) = refusal(importer(&target, &chain).import(&file, &mut on).unwrap_err());
        assert!(offset <= at as u64 && !detail.is_empty(), "byte {at}: offset {offset}, {detail}");
    }
    fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    let target = empty();
    let mut import = importer(&target, &chain);
    refusal(import.import(&file, &mut on).unwrap_err());
    assert_eq!(import.chain().head().header.number, 3);
    drop(import);
    fs::write(&file, &bytes).unwrap();
    importer(&target, &chain).import(&file, &mut on).unwrap();
    assert_eq!(content(&*target), content(&*chain.storage));
}

#[test]
fn blocks_of_another_chain_group_or_future_are_refused() {
    let mut chain = TestChain::new(1);
    chain.grow(3, 1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("blocks");
    export(&chain, &order(&file), &mut on).unwrap();
    let refused = |chain_id, group: i64, mark: &str| {
        let genesis = crate::Genesis { group: GroupId::new(group).unwrap(), ..genesis(1, mark) };
        let mut importer = Importer::open(empty(), chain_id, &genesis).unwrap();
        refusal(importer.import(&file, &mut on).unwrap_err()).1
    };
    assert!(refused(2, 1, "test").contains("chain 1, not of chain 2"));
    assert!(refused(1, 3, "test").contains("group 1, not of group 3"));
    assert!(refused(1, 1, "other").contains("starts with block 0"));
    let late = directory.path().join("late");
    export(&chain, &Export { from: Some(2), ..order(&late) }, &mut on).unwrap();
    assert!(refusal(importer(&empty(), &chain).import(&late, &mut on).unwrap_err()).1.contains("needs block 1 first"));
    let mut fork = TestChain::new(1);
    fork.grow(4, 2);
    let mut import = importer(&fork.storage, &fork);
    assert!(refusal(import.import(&file, &mut on).unwrap_err()).1.contains("another chain"));
    assert_eq!(import.chain().head().header.number, 4);
}

#[test]
fn import_that_was_stopped_goes_on() {
    let mut chain = TestChain::new(1);
    chain.grow(5, 2);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("blocks");
    export(&chain, &order(&file), &mut on).unwrap();
    let target = empty();
    let stopped =
        importer(&target, &chain).import(&file, &mut |done, _| if done == 2 { ControlFlow::Break(()) } else { on(done, 0) }).unwrap();
    assert_eq!((stopped.blocks, stopped.height, stopped.is_complete), (2, 2, false));
    let rest = importer(&target, &chain).import(&file, &mut on).unwrap();
    assert_eq!((rest.known, rest.blocks, rest.is_complete), (2, 3, true));
    assert_eq!(content(&*target), content(&*chain.storage));
}

#[test]
fn ranges_that_are_not_there_are_refused_in_words() {
    let mut chain = TestChain::new(1);
    chain.grow(3, 1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("blocks");
    let refused = |from, to| match export(&chain, &Export { from, to, ..order(&file) }, &mut on) {
        Err(ArchiveError::Range(text)) => text,
        other => panic!("{other:?}"),
    };
    let nothing = export(&TestChain::new(1), &order(&file), &mut on).unwrap_err().to_string();
    assert!(nothing.contains("no blocks yet"), "{nothing}");
    assert!(refused(Some(0), None).contains("genesis file"));
    assert!(refused(None, Some(4)).contains("last block is 3"));
    assert!(refused(Some(3), Some(2)).contains("no block from 3 to 2"));
    assert!(!file.exists());
}
