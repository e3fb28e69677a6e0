//! Random proposals over several heights: what the stage answers is what a naive judge says who knows every block.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Transactions of these numbers come from clients.
    Admit(Vec<u64>),
    /// A proposal at so many heights above the head names these.
    Propose(u64, Vec<u64>),
    /// What was asked for is given.
    Give,
    /// This node fills the next height.
    Seal(u64),
    /// The lowest height in flight is executed and committed.
    Commit,
    /// Heights above so many over the head are void.
    Void(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::vec(0..60u64, 0..5);
    let step = prop_oneof![
        3 => some().prop_map(Step::Admit),
        4 => (1..5u64, some()).prop_map(|(ahead, numbers)| Step::Propose(ahead, numbers)),
        3 => Just(Step::Give),
        2 => (1..4u64).prop_map(Step::Seal),
        2 => Just(Step::Commit),
        1 => (0..4u64).prop_map(Step::Void),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Numbers from 40 up have the nonces of lower ones; block limits end within a history's reach.
fn transaction(number: u64) -> VerifiedTx {
    Shape { salt: number, block_limit: 3 + number % 30, ..Shape::new(number % 40) }.signed(1)
}

/// What is in each height, whether committed or in flight.
#[derive(Default)]
struct Judge {
    head: u64,
    contents: BTreeMap<u64, Vec<VerifiedTx>>,
}

impl Judge {
    fn accepts(&self, height: u64, proposal: &[VerifiedTx]) -> bool {
        let below: Vec<_> = self.contents.range(..height).flat_map(|(_, content)| content).map(|one| one.fields().nonce).collect();
        proposal.iter().enumerate().all(|(index, one)| {
            let fields = one.fields();
            let is_first = proposal[..index].iter().all(|other| other.fields().nonce != fields.nonce);
            fields.block_limit >= millrace_base::U256::from(height) && is_first && !below.contains(&fields.nonce)
        })
    }

    fn top(&self) -> u64 {
        self.contents.last_key_value().map_or(0, |(height, _)| *height).max(self.head)
    }

    fn put(&mut self, height: u64, content: Vec<VerifiedTx>) {
        assert_eq!(height, self.top().min(height - 1) + 1, "known without gaps");
        self.contents.split_off(&height);
        self.contents.insert(height, content);
    }
}

/// Checks the answers the engine got, lowest height first, and takes them over.
fn check(bench: &mut Bench, judge: &mut Judge, open: &mut BTreeMap<u64, Vec<VerifiedTx>>) -> Result<(), TestCaseError> {
    for input in bench.inputs(1) {
        match input {
            Input::Gathered { height, outcome, .. } => {
                let proposal = open.remove(&height).expect("only what is open is answered");
                prop_assert!(height <= judge.top() + 1, "heights below are known");
                match outcome {
                    Gathered::Complete(transactions) => {
                        prop_assert!(judge.accepts(height, &proposal));
                        prop_assert_eq!(&transactions, &proposal);
                        let is_same = judge.contents.get(&height) == Some(&proposal);
                        if !is_same {
                            judge.put(height, proposal);
                        }
                    }
                    Gathered::Refused(reason) => prop_assert!(!judge.accepts(height, &proposal), "refused: {reason}"),
                }
            }
            Input::Sealed { height, transactions, .. } => {
                prop_assert!(judge.accepts(height, &transactions), "an own proposal that others would refuse");
                judge.put(height, transactions);
            }
            _ => {}
        }
    }
    Ok(())
}

fn run(history: Vec<Step>) -> Result<(), TestCaseError> {
    let mut bench = Bench::with_pool_of(12);
    bench.open(1);
    bench.connect(&[2]);
    let (mut judge, mut open) = (Judge::default(), BTreeMap::new());
    let pick = |numbers: &[u64]| numbers.iter().map(|number| transaction(*number)).collect::<Vec<_>>();
    for (index, step) in history.into_iter().enumerate() {
        match step {
            Step::Admit(numbers) => bench.admit(1, &pick(&numbers), Submitter(7)),
            Step::Propose(ahead, numbers) => {
                let (height, proposal) = (judge.head + ahead, pick(&numbers));
                let is_other = judge.contents.get(&height).is_some_and(|content| *content != proposal);
                if is_other || (open.contains_key(&height) && judge.contents.contains_key(&height)) {
                    judge.contents.split_off(&height);
                }
                let replaced = open.insert(height, proposal.clone()).is_some();
                if replaced {
                    judge.contents.split_off(&height);
                }
                bench.say(1, vec![gather(height, index as u8, &proposal, &[node(2)])]);
            }
            Step::Give => {
                bench.pass_ms(4_000);
                let asked: Vec<B256> = bench.wants().into_iter().flat_map(|(_, hashes)| hashes).collect();
                let given: Vec<_> = open.values().flatten().filter(|one| asked.contains(&one.hash())).cloned().collect();
                bench.give(1, &given);
            }
            Step::Seal(limit) => {
                let height = judge.top() + 1;
                open.split_off(&height);
                bench.say(1, vec![seal(height, limit)]);
            }
            Step::Commit => {
                let height = judge.head + 1;
                let Some(content) = judge.contents.get(&height).cloned() else { continue };
                check(&mut bench, &mut judge, &mut open)?;
                open.remove(&height);
                bench.run_block(1, height, &content);
                judge.head = height;
            }
            Step::Void(ahead) => {
                let above = judge.head + ahead;
                open.split_off(&(above + 1));
                judge.contents.split_off(&(above + 1));
                bench.say(1, vec![Effect::Void { above }]);
            }
        }
        check(&mut bench, &mut judge, &mut open)?;
        prop_assert!(bench.ledger(1).halted().is_none(), "{:?}", bench.ledger(1).halted());
    }
    Ok(())
}

fn seal(height: u64, limit: u64) -> Effect {
    bench::seal(height, limit)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn proposals_are_answered_as_a_judge_says_who_knows_every_block(history in steps()) {
        run(history)?;
    }
}
