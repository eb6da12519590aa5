//! Writes programs: one method for each instruction, and labels for jumps. Pure.

use super::btf::KernelFunction;
use super::instruction::{Helper, Instruction, Register, Size, code};

/// A program that is being written. Each method appends one instruction (two where 64 bits are loaded).
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    program: Vec<Instruction>,
    /// Where each label is; none where it was not placed yet.
    labels: Vec<Option<usize>>,
    /// Which instruction jumps to which label.
    jumps: Vec<(usize, Label)>,
}

/// A place to jump to, later in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

impl Assembler {
    /// A label, to be placed by [`Assembler::place`].
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Lets a label stand for the next instruction.
    pub fn place(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = Some(self.program.len());
        self
    }

    /// The program. A label that was never placed leads out of it, which the kernel refuses.
    pub fn finish(mut self) -> Vec<Instruction> {
        for (from, label) in self.jumps {
            let to = self.labels[label.0].and_then(|to| i16::try_from(to - from - 1).ok());
            self.program[from].offset = to.unwrap_or(i16::MAX);
        }
        self.program
    }

    /// `to = from`
    pub fn copy(&mut self, to: Register, from: Register) -> &mut Self {
        self.push(code::MOVE, to, from, 0, 0)
    }

    /// `to = number`
    pub fn set(&mut self, to: Register, number: i32) -> &mut Self {
        self.push(code::MOVE_IMMEDIATE, to, Register::R0, 0, number)
    }

    /// `to = number`, of 64 bits.
    pub fn set_64(&mut self, to: Register, number: u64) -> &mut Self {
        self.push(code::LOAD_64, to, Register::R0, 0, number as i32);
        self.push(code::SECOND, Register::R0, Register::R0, 0, (number >> 32) as i32)
    }

    /// `to = map`, by the map's descriptor.
    pub fn set_map(&mut self, to: Register, descriptor: i32) -> &mut Self {
        self.push(code::LOAD_64, to, Register::R0, 0, descriptor);
        if let Some(last) = self.program.last_mut() {
            last.registers |= code::MAP << 4;
        }
        self.push(code::SECOND, Register::R0, Register::R0, 0, 0)
    }

    /// `to = *(from + offset)`
    pub fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) -> &mut Self {
        self.push(code::LOAD | size as u8, to, from, offset, 0)
    }

    /// `*(to + offset) = from`
    pub fn store(&mut self, size: Size, to: Register, offset: i16, from: Register) -> &mut Self {
        self.push(code::STORE | size as u8, to, from, offset, 0)
    }

    /// `*(to + offset) = number`
    pub fn store_number(&mut self, size: Size, to: Register, offset: i16, number: i32) -> &mut Self {
        self.push(code::STORE_IMMEDIATE | size as u8, to, Register::R0, offset, number)
    }

    /// `to += number`
    pub fn add(&mut self, to: Register, number: i32) -> &mut Self {
        self.push(code::ADD_IMMEDIATE, to, Register::R0, 0, number)
    }

    /// `to -= from`
    pub fn subtract(&mut self, to: Register, from: Register) -> &mut Self {
        self.push(code::SUBTRACT, to, from, 0, 0)
    }

    /// `to -= from`, of 32 bits; the upper ones become zero.
    pub fn subtract_32(&mut self, to: Register, from: Register) -> &mut Self {
        self.push(code::SUBTRACT_32, to, from, 0, 0)
    }

    /// `to &= number`, its sign taken to all 64 bits.
    pub fn and(&mut self, to: Register, number: i32) -> &mut Self {
        self.push(code::AND_IMMEDIATE, to, Register::R0, 0, number)
    }

    /// `*(to + offset) += from`, of 64 bits, as one step for all processors.
    pub fn add_atomically(&mut self, to: Register, offset: i16, from: Register) -> &mut Self {
        self.push(code::ATOMIC_64, to, from, offset, 0)
    }

    /// `to *= number`
    pub fn multiply(&mut self, to: Register, number: i32) -> &mut Self {
        self.push(code::MULTIPLY_IMMEDIATE, to, Register::R0, 0, number)
    }

    /// `to %= by`, of 32 bits without a sign.
    pub fn modulo(&mut self, to: Register, by: Register) -> &mut Self {
        self.push(code::MODULO_32, to, by, 0, 0)
    }

    /// Calls the kernel.
    pub fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(code::CALL, Register::R0, Register::R0, 0, helper as i32)
    }

    /// Calls a function of the kernel that is no helper.
    pub fn call_function(&mut self, function: KernelFunction) -> &mut Self {
        self.push(code::CALL, Register::R0, Register::R0, function.module, function.number);
        if let Some(last) = self.program.last_mut() {
            last.registers |= code::FUNCTION << 4;
        }
        self
    }

    /// Ends the program with what `R0` holds.
    pub fn exit(&mut self) -> &mut Self {
        self.push(code::EXIT, Register::R0, Register::R0, 0, 0)
    }

    /// `goto label`
    pub fn jump(&mut self, label: Label) -> &mut Self {
        self.branch(code::JUMP, Register::R0, Register::R0, 0, label)
    }

    /// `if one == number goto label`
    pub fn jump_if_equal(&mut self, one: Register, number: i32, label: Label) -> &mut Self {
        self.branch(code::JUMP_EQUAL_IMMEDIATE, one, Register::R0, number, label)
    }

    /// `if one != number goto label`
    pub fn jump_unless_equal(&mut self, one: Register, number: i32, label: Label) -> &mut Self {
        self.branch(code::JUMP_UNEQUAL_IMMEDIATE, one, Register::R0, number, label)
    }

    /// `if one != other goto label`
    pub fn jump_if_different(&mut self, one: Register, other: Register, label: Label) -> &mut Self {
        self.branch(code::JUMP_UNEQUAL, one, other, 0, label)
    }

    /// `if one > other goto label`, without a sign.
    pub fn jump_if_greater(&mut self, one: Register, other: Register, label: Label) -> &mut Self {
        self.branch(code::JUMP_GREATER, one, other, 0, label)
    }

    /// `if one > number goto label`, without a sign.
    pub fn jump_if_above(&mut self, one: Register, number: i32, label: Label) -> &mut Self {
        self.branch(code::JUMP_GREATER_IMMEDIATE, one, Register::R0, number, label)
    }

    fn branch(&mut self, code: u8, to: Register, from: Register, immediate: i32, label: Label) -> &mut Self {
        self.jumps.push((self.program.len(), label));
        self.push(code, to, from, 0, immediate)
    }

    fn push(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> &mut Self {
        let registers = to as u8 | (from as u8) << 4;
        self.program.push(Instruction { code, registers, offset, immediate });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Register::{Frame, R0, R1, R6};
    use super::*;

    fn text(assembler: Assembler) -> Vec<String> {
        assembler.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn jumps_are_counted_from_the_next_instruction_and_64_bits_take_two() {
        let mut code = Assembler::default();
        let end = code.label();
        code.copy(R6, R1)
            .jump_if_equal(R1, 0, end)
            .set_64(R0, 0x1_0000_0002)
            .set_map(R1, 7)
            .place(end)
            .exit();
        let lines = ["r6 = r1", "if r1 == 0 goto +4", "r0 = 0x2 ll", "    upper half 0x1", "r1 = map 7"];
        assert_eq!(text(code), [&lines[..], &["    upper half 0x0", "exit"]].concat());
    }

    #[test]
    fn every_instruction_reads_as_the_verifier_prints_it() {
        let mut code = Assembler::default();
        code.load(Size::Half, R0, R6, 24)
            .load(Size::Word, R0, R6, 4)
            .store(Size::Double, Frame, -8, R0)
            .store_number(Size::Word, Frame, -12, 3)
            .modulo(R0, R1)
            .call(Helper::MapLookup)
            .load(Size::Byte, R0, R6, 23)
            .subtract_32(R0, R1)
            .and(R0, -2)
            .add_atomically(R6, 8, R1)
            .call_function(KernelFunction { number: 4711, module: 0 });
        assert_eq!(
            text(code),
            [
                "r0 = *(u16 *)(r6+24)",
                "r0 = *(u32 *)(r6+4)",
                "*(u64 *)(fp-8) = r0",
                "*(u32 *)(fp-12) = 0x3",
                "w0 %= w1",
                "call map_lookup_elem",
                "r0 = *(u8 *)(r6+23)",
                "w0 -= w1",
                "r0 &= -2",
                "lock *(u64 *)(r6+8) += r1",
                "call kernel function 4711",
            ]
        );
    }

    #[test]
    fn a_label_that_was_not_placed_leads_out_of_the_program() {
        let mut code = Assembler::default();
        let nowhere = code.label();
        code.jump(nowhere).exit();
        assert_eq!(text(code)[0], "goto +32767");
    }
}
