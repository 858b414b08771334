use rads_vm::*;
use std::sync::Arc;
fn f(name: &str, params: usize, registers: u8, code: Vec<Op>) -> Function {
    let spans = vec![Span::default(); code.len()];
    Function { name: name.into(), file: FileId(0), params: vec![Symbol(0); params].into(), defaults: false, rest: false, registers, code: code.into(), spans: spans.into(), handlers: Box::default(), captures: Box::default() }
}
fn run(p: Program) {
    let natives = Arc::new(Natives::builder().build());
    let mut vm = Vm::new(Arc::new(p), natives, Limits::default());
    vm.start();
    #[allow(clippy::disallowed_methods, clippy::disallowed_types)]
    let t = std::time::Instant::now();
    loop {
        match vm.run(1_000_000) {
            Step::Finished { outcome, .. } => { println!("{:?} {:?}", outcome.map(|v| format!("{v:?}")), t.elapsed()); break }
            Step::Yielded => {}
            other => println!("{other:?}"),
        }
    }
}
fn main() {
    let mut p = Program::default();
    p.symbols.intern("n");
    p.functions.push(f("fib", 1, 5, vec![
        Op::JumpNotLessInt { a: 0, value: 2, by: 1 },
        Op::Return { a: 0 },
        Op::SubInt { a: 2, b: 0, value: 1 },
        Op::CallDirect { a: 1, n: 1, function: 0 },
        Op::SubInt { a: 3, b: 0, value: 2 },
        Op::CallDirect { a: 2, n: 1, function: 0 },
        Op::Add { a: 1, b: 1, c: 2 },
        Op::Return { a: 1 },
    ]));
    p.functions.push(f("main", 0, 4, vec![
        Op::Int { a: 1, value: 30 },
        Op::CallDirect { a: 0, n: 1, function: 0 },
        Op::Return { a: 0 },
    ]));
    p.entry = Some(FunctionId(1));
    for _ in 0..3 { run(p.clone()); }
    let mut p = Program::default();
    p.consts.push(Const::Int(10_000_000));
    p.functions.push(f("main", 0, 4, vec![
        Op::Int { a: 0, value: 0 },
        Op::Int { a: 1, value: 0 },
        Op::Const { a: 2, at: 0 },
        Op::Jump { by: 2 },
        Op::Add { a: 1, b: 1, c: 0 },
        Op::AddInt { a: 0, b: 0, value: 1 },
        Op::JumpLess { a: 0, b: 2, by: -3 },
        Op::Return { a: 1 },
    ]));
    p.entry = Some(FunctionId(0));
    for _ in 0..3 { run(p.clone()); }
}
