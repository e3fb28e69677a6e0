//! Which stack error a 2.x node sees before it meets an undefined instruction.
//!
//! The machine of 2.x nodes checks the stack once for a whole basic block before it runs the block. Where revm stops at an undefined
//! instruction, 2.x may never have got that far: when a later instruction of the same block lacks operands, the status is 14. An
//! undefined instruction does not end a block there.

use millrace_base::TransactionStatus;
use revm::bytecode::opcode::{self, OpCode, OpCodeInfo};

/// Most items on the stack of a frame.
const STACK_LIMIT: i32 = 1_024;

/// The stack error in the rest of the basic block after the undefined instruction at `position`, where the stack held `height` items.
pub(super) fn stack_error_after(code: &[u8], position: usize, height: usize) -> Option<TransactionStatus> {
    let mut height = i32::try_from(height).expect("a stack holds at most 1024 items");
    let mut is_overflow = false;
    let mut next = position + 1;
    while let Some(&instruction) = code.get(next) {
        if instruction == opcode::JUMPDEST {
            break;
        }
        next += 1;
        let Some(info) = istanbul_info(instruction) else {
            continue;
        };
        if height < i32::from(info.inputs()) {
            return Some(TransactionStatus::StackUnderflow);
        }
        height += i32::from(info.outputs()) - i32::from(info.inputs());
        is_overflow |= height > STACK_LIMIT;
        if ends_block(instruction) {
            break;
        }
        next += usize::from(info.immediate_size());
    }
    is_overflow.then_some(TransactionStatus::OutOfStack)
}

/// What an Istanbul instruction does with the stack; `None` for what Istanbul does not define.
fn istanbul_info(instruction: u8) -> Option<OpCodeInfo> {
    let is_later = matches!(instruction, opcode::CLZ | opcode::BASEFEE..=0x4f | opcode::TLOAD..=opcode::PUSH0 | 0xe0..=0xef | 0xfe);
    if is_later { None } else { OpCode::info_by_op(instruction) }
}

fn ends_block(instruction: u8) -> bool {
    use opcode::{JUMP, JUMPI, RETURN, REVERT, SELFDESTRUCT, STOP};
    matches!(instruction, JUMP | JUMPI | STOP | RETURN | REVERT | SELFDESTRUCT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_operands_later_in_the_block_come_first() {
        // PUSH0 PUSH0 RETURN: RETURN finds nothing.
        assert_eq!(stack_error_after(&[0x5f, 0x5f, 0xf3], 0, 0), Some(TransactionStatus::StackUnderflow));
        assert_eq!(stack_error_after(&[0x5f, 0x5f, 0xf3], 0, 2), None);
    }

    #[test]
    fn the_next_block_does_not_count() {
        assert_eq!(stack_error_after(&[0x0c, 0x5b, 0x01], 0, 0), None);
        assert_eq!(stack_error_after(&[0x0c, 0x00, 0x01], 0, 0), None);
    }

    #[test]
    fn pushed_data_is_no_instruction() {
        assert_eq!(stack_error_after(&[0x0c, 0x61, 0x01, 0x01, 0x50], 0, 0), None);
    }

    #[test]
    fn overflow_is_found_unless_operands_are_missing_too() {
        assert_eq!(stack_error_after(&[0x0c, 0x60, 0x00], 0, 1_024), Some(TransactionStatus::OutOfStack));
    }
}
