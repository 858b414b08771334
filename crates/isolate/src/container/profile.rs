//! A system call filter as a bundle describes it, as a program for the kernel.
//!
//! For each architecture the numbers are searched by halves; a number leads to the rules that name it, tried in the
//! order of their listing. What no rule decides has the profile's own verdict, and a call of an architecture that is
//! not listed ends the process.

use std::collections::BTreeMap;

use crate::seccomp::{Instruction, give, jump, jump_if, load, search};

/// Most instructions the kernel takes.
const PROGRAM_MAX: usize = 4096;

// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Set in the numbers of x32, whose calls have the architecture of x86-64.
const X32: u32 = 0x4000_0000;
const X86_64: u32 = 0xc000_003e;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// `SECCOMP_RET_…` with its data, for what no rule decides.
    pub otherwise: u32,
    pub architectures: Vec<Architecture>,
}

/// The calls of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    /// `AUDIT_ARCH_…`.
    pub audit: u32,
    /// Whether these are the numbers of x32, which share x86-64's name.
    pub x32: bool,
    /// By number, without the bit that marks x32.
    pub calls: BTreeMap<u32, Vec<Rule>>,
}

/// What becomes of a call when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub verdict: u32,
    pub conditions: Vec<Condition>,
}

/// A comparison of one of the six arguments, all 64 bits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    pub argument: u32,
    pub test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    MaskedEqual { mask: u64, value: u64 },
}

impl Profile {
    /// The program. An error when it is larger than the kernel takes.
    pub(crate) fn program(&self) -> Result<Vec<Instruction>, String> {
        let mut program = vec![load(ARCH)];
        let mut audits: Vec<u32> = self.architectures.iter().map(|architecture| architecture.audit).collect();
        audits.sort_unstable();
        audits.dedup();
        for audit in audits {
            let body = self.body(audit);
            // The body lies behind an unconditional jump: a conditional one reaches 255 instructions.
            program.push(jump_if(libc::BPF_JEQ, audit, 1, 0));
            program.push(jump(body.len() as u32));
            program.extend(body);
        }
        program.push(give(libc::SECCOMP_RET_KILL_PROCESS));
        match program.len() {
            length if length > PROGRAM_MAX => Err(format!(
                "the system call filter takes {length} instructions and the kernel takes {PROGRAM_MAX} at most"
            )),
            _ => Ok(program),
        }
    }

    fn body(&self, audit: u32) -> Vec<Instruction> {
        let of = |x32: bool| {
            let mut found = self.architectures.iter().filter(move |one| one.audit == audit && one.x32 == x32);
            found.next()
        };
        let mut body = vec![load(NUMBER)];
        if audit == X86_64 {
            let x32 = match of(true) {
                // The numbers are compared with their mark.
                Some(architecture) => self.calls(&architecture.calls, X32),
                None => vec![give(libc::SECCOMP_RET_KILL_PROCESS)],
            };
            body.push(jump_if(libc::BPF_JGE, X32, 0, 1));
            body.push(jump(0));
            let at = body.len() - 1;
            let native =
                of(false).map_or_else(|| vec![give(libc::SECCOMP_RET_KILL_PROCESS)], |it| self.calls(&it.calls, 0));
            body[at] = jump(native.len() as u32);
            body.extend(native);
            body.extend(x32);
        } else if let Some(architecture) = of(false) {
            body.extend(self.calls(&architecture.calls, 0));
        }
        body
    }

    fn calls(&self, calls: &BTreeMap<u32, Vec<Rule>>, mark: u32) -> Vec<Instruction> {
        // The rules of each run of numbers; none for what is not named.
        let mut ranges: Vec<(u32, &[Rule])> = vec![(0, &[])];
        for (&number, rules) in calls {
            let number = number | mark;
            for (from, rules) in [(number, &rules[..]), (number + 1, &[][..])] {
                if ranges.last().is_some_and(|&(last, _)| last == from) {
                    ranges.pop();
                }
                if ranges.last().is_none_or(|&(_, before)| before != rules) {
                    ranges.push((from, rules));
                }
            }
        }
        search(&ranges, &|rules: &&[Rule]| self.decide(rules))
    }

    fn decide(&self, rules: &[Rule]) -> Vec<Instruction> {
        let mut code = Vec::new();
        for rule in rules {
            code.extend(rule_code(rule));
            if rule.conditions.is_empty() {
                return code;
            }
        }
        code.push(give(self.otherwise));
        code
    }
}

/// Falls through to what follows when a condition does not hold.
fn rule_code(rule: &Rule) -> Vec<Instruction> {
    let mut code = vec![give(rule.verdict)];
    for condition in rule.conditions.iter().rev() {
        let mut test = condition_code(*condition, code.len() as u8);
        test.append(&mut code);
        code = test;
    }
    code
}

/// Goes on when the condition holds, and skips `rest` instructions after itself when it does not. A rule has few
/// conditions, so `rest` stays far below what a jump reaches.
fn condition_code(condition: Condition, rest: u8) -> Vec<Instruction> {
    // Little-endian, as all architectures this runs on: the low half comes first.
    let low = ARGUMENTS + 8 * condition.argument;
    let high = low + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (je, jgt, jge) = (libc::BPF_JEQ, libc::BPF_JGT, libc::BPF_JGE);
    match condition.test {
        Test::Equal(value) => {
            let (top, bottom) = halves(value);
            vec![load(high), jump_if(je, top, 0, rest + 2), load(low), jump_if(je, bottom, 0, rest)]
        }
        Test::NotEqual(value) => {
            let (top, bottom) = halves(value);
            vec![load(high), jump_if(je, top, 0, 2), load(low), jump_if(je, bottom, rest, 0)]
        }
        Test::Greater(value) => ordered(low, high, halves(value), (jgt, jgt), rest, false),
        Test::GreaterOrEqual(value) => ordered(low, high, halves(value), (jgt, jge), rest, false),
        Test::Less(value) => ordered(low, high, halves(value), (jgt, jge), rest, true),
        Test::LessOrEqual(value) => ordered(low, high, halves(value), (jgt, jgt), rest, true),
        Test::MaskedEqual { mask, value } => {
            let ((mask_top, mask_bottom), (top, bottom)) = (halves(mask), halves(value & mask));
            vec![
                load(high),
                and(mask_top),
                jump_if(je, top, 0, rest + 3),
                load(low),
                and(mask_bottom),
                jump_if(je, bottom, 0, rest),
            ]
        }
    }
}

/// Whether the argument is greater (or, with `not`, whether it is not), by the upper half first.
fn ordered(
    low: u32,
    high: u32,
    (top, bottom): (u32, u32),
    (above, test): (u32, u32),
    rest: u8,
    not: bool,
) -> Vec<Instruction> {
    // Upper half above: true. Equal: the lower half decides. Below: false.
    let (yes, no) = if not { (rest, 0) } else { (0, rest) };
    vec![
        load(high),
        jump_if(above, top, yes + 3, 0),
        jump_if(libc::BPF_JEQ, top, 0, no + 2),
        load(low),
        jump_if(test, bottom, yes, no),
    ]
}

fn and(mask: u32) -> Instruction {
    crate::seccomp::instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const DENY: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const I386: u32 = 0x4000_0003;

    /// What the kernel would do with the program.
    fn run(program: &[Instruction], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let then = |test: bool| usize::from(if test { jt } else { jf });
            match code {
                _ if code == libc::BPF_RET | libc::BPF_K => return k,
                _ if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCH => audit,
                        _ => {
                            let argument = arguments[((k - ARGUMENTS) / 8) as usize];
                            if (k - ARGUMENTS) % 8 == 4 { (argument >> 32) as u32 } else { argument as u32 }
                        }
                    };
                }
                _ if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => accumulator &= k,
                _ if code == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
                _ if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => at += then(accumulator == k),
                _ if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => at += then(accumulator >= k),
                _ if code == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K => at += then(accumulator > k),
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn rule(verdict: u32, conditions: &[(u32, Test)]) -> Rule {
        let conditions = conditions.iter().map(|&(argument, test)| Condition { argument, test }).collect();
        Rule { verdict, conditions }
    }

    fn profile(calls: Vec<(u32, Vec<Rule>)>) -> Profile {
        let architecture = |audit, x32| Architecture { audit, x32, calls: calls.iter().cloned().collect() };
        Profile { otherwise: DENY, architectures: vec![architecture(X86_64, false), architecture(I386, false)] }
    }

    #[test]
    fn every_number_meets_its_rule_on_every_architecture_that_is_listed() {
        let listed: Vec<u32> = vec![0, 1, 2, 7, 59, 300, 449];
        let mut profile = profile(listed.iter().map(|&number| (number, vec![rule(ALLOW, &[])])).collect());
        for x32 in [false, true] {
            if x32 {
                let calls = profile.architectures[0].calls.clone();
                profile.architectures.push(Architecture { audit: X86_64, x32: true, calls });
            }
            let program = profile.program().unwrap();
            for number in (0..600).chain([u32::MAX >> 2]) {
                let expected = if listed.contains(&number) { ALLOW } else { DENY };
                assert_eq!(run(&program, X86_64, number, [0; 6]), expected, "{number}");
                assert_eq!(run(&program, I386, number, [0; 6]), expected, "{number}");
                assert_eq!(run(&program, X86_64, number | X32, [0; 6]), if x32 { expected } else { KILL }, "{number}");
                assert_eq!(run(&program, 0xc000_00b7, number, [0; 6]), KILL);
            }
        }
    }

    /// Whether a comparison of two numbers is true.
    type Holds = fn(u64, u64) -> bool;

    #[test]
    fn arguments_are_compared_in_all_their_bits() {
        let edges = [0, 1, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, (5 << 32) + 1, u64::MAX];
        for value in edges {
            let tests: [(Test, Holds); 7] = [
                (Test::Equal(value), |a, b| a == b),
                (Test::NotEqual(value), |a, b| a != b),
                (Test::Less(value), |a, b| a < b),
                (Test::LessOrEqual(value), |a, b| a <= b),
                (Test::Greater(value), |a, b| a > b),
                (Test::GreaterOrEqual(value), |a, b| a >= b),
                (Test::MaskedEqual { mask: 5 << 32 | 1, value }, |a, b| a & (5 << 32 | 1) == b & (5 << 32 | 1)),
            ];
            for (test, holds) in tests {
                let program = profile(vec![(9, vec![rule(ALLOW, &[(3, test)])])]).program().unwrap();
                for argument in edges {
                    let expected = if holds(argument, value) { ALLOW } else { DENY };
                    assert_eq!(run(&program, X86_64, 9, [7, 7, 7, argument, 7, 7]), expected, "{test:?} {argument:#x}");
                }
            }
        }
    }

    #[test]
    fn all_conditions_of_a_rule_hold_or_the_next_is_tried() {
        let rules = vec![
            rule(KILL, &[(0, Test::Equal(1)), (5, Test::Greater(8))]),
            rule(ALLOW, &[(1, Test::Equal(2))]),
            rule(ALLOW | 7, &[]),
        ];
        let program = profile(vec![(3, rules)]).program().unwrap();
        let check = |arguments, expected| assert_eq!(run(&program, X86_64, 3, arguments), expected, "{arguments:?}");
        check([1, 2, 0, 0, 0, 9], KILL);
        check([1, 2, 0, 0, 0, 8], ALLOW);
        check([0, 2, 0, 0, 0, 9], ALLOW);
        check([0, 0, 0, 0, 0, 9], ALLOW | 7);
    }

    #[test]
    fn a_program_the_kernel_would_not_take_is_refused() {
        let many = (0..700).map(|number| (number, vec![rule(ALLOW, &[(0, Test::Less(u64::from(number)))])])).collect();
        assert!(profile(many).program().unwrap_err().contains("the kernel takes 4096 at most"));
    }
}
